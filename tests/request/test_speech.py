"""A request on its way, and the rows produced so far."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_requests import random_frames, special_tokens_of, speech_request

N_CODES = 9


@given(n_vq=st.sampled_from([1, 2, 3]), n_rows=st.integers(0, 5), first=st.integers(0, 14), length=st.integers(0, 14))
@settings(max_examples=100)
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
