"""A request on its way: what the scheduler is handed, how it finds the request again, and the rows produced so far."""

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_requests import random_frames, special_tokens_of, speech_request

from sglang_moss.request.speech import attach_progress, envelope, progress_of, row_keys

N_CODES = 9


@given(n_vq=st.sampled_from([1, 2, 3]), n_rows=st.integers(0, 5), first=st.integers(0, 14), length=st.integers(0, 14))
@settings(max_examples=100, deadline=None)
def test_rows_of_a_range_are_that_range_of_all_rows(n_vq, n_rows, first, length):
    tokens = special_tokens_of(n_vq, N_CODES)
    request = speech_request(tokens, random_frames(4, tokens), n_words=2)
    request.rows.extend([np.full(1 + n_vq, i) for i in range(n_rows)])
    rows = request.all_rows()
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, [*request.request.prompt.rows, *request.rows[:]])
    np.testing.assert_array_equal(request.all_rows(first, first + length), rows[first : first + length])
    np.testing.assert_array_equal(request.all_rows(first), rows[first:])


@pytest.mark.parametrize(
    ("settings", "last_audio_row"),
    [
        ({}, 0),
        ({"max_new_tokens": 5}, 0),
        ({"max_new_tokens": 2**31 - 1}, 0),
        ({"max_new_tokens": 5, "ignore_eos": True}, 9),
    ],
)
def test_only_a_fixed_length_fixes_the_last_row_of_audio(settings, last_audio_row):
    tokens = special_tokens_of(2, N_CODES)
    assert speech_request(tokens, random_frames(4, tokens), **settings).request.last_audio_row == last_audio_row


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
