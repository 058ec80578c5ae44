"""What the scheduler is handed of a request, and how it finds the request again."""

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from speech_requests import random_frames, special_tokens_of, speech_request

from sglang_moss.multimodal_item import attach_progress, envelope, progress_of
from sglang_moss.request.speech import row_keys

pytestmark = pytest.mark.wide

N_CODES = 9


@pytest.mark.parametrize("n_vq", [1, 3])
def test_the_scheduler_gets_text_ids_keys_and_after_pickling_the_whole_request(n_vq):
    tokens = special_tokens_of(n_vq, N_CODES)
    request = speech_request(tokens, random_frames(4, tokens), sampling_seed=2**63 - 1).request
    packed = pickle.loads(pickle.dumps(envelope(request, tokens.pad_code)))
    assert packed.input_ids == request.prompt.rows[:, 0].tolist()
    assert packed.padded_input_ids == row_keys(request.prompt.rows, tokens.pad_code)

    req: Any = SimpleNamespace()
    attach_progress(packed, req)
    progress = progress_of(req)
    assert progress is not None
    assert packed.req is req
    assert len(progress.rows) == 0
    assert progress.request.options == request.options
    np.testing.assert_array_equal(progress.request.prompt.rows, request.prompt.rows)
    np.testing.assert_array_equal(progress.request.prompt.prompt_codes, request.prompt.prompt_codes)


@pytest.mark.parametrize("multimodal_inputs", [None, SimpleNamespace(mm_items=[])])
def test_a_request_without_speech_has_no_progress(multimodal_inputs):
    req: Any = SimpleNamespace()
    attach_progress(multimodal_inputs, req)
    assert progress_of(req) is None
