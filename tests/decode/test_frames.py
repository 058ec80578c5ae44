"""Frames read off rows: parity with the reference's answers, and the same frames on any schedule of arrival."""

import numpy as np
import pytest
from golden_data import golden_arrays, golden_json
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_requests import random_frames, special_tokens_of, speech_request, spoken_rows, text_rows

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.decode.frames import NEVER, FrameReader
from sglang_moss.delay.state import replay

E2E = golden_arrays("e2e/e2e")
SERVED = {case["key"]: case for case in golden_json("e2e/e2e")["served"]}
GOLDEN_TOKENS = special_tokens(golden_json("../ttsd/config"))


def read_at_once(rows: np.ndarray, tokens: SpecialTokens, continues_prompt: bool) -> np.ndarray:
    return FrameReader(tokens, continues_prompt).read(rows)


def golden_answer(key: str) -> tuple[np.ndarray, bool]:
    """The reference's generated rows, and whether its prompt ends in audio."""
    audio_rows, _ = replay(E2E[f"{key}.effective_ids"][:, 0], GOLDEN_TOKENS)
    return E2E[f"{key}.output_rows"], audio_rows > 0


@pytest.mark.parametrize("key", [key for key in SERVED if f"{key}.generated_codes" in E2E])
def test_frames_equal_the_references_generated_codes(key):
    rows, continues_prompt = golden_answer(key)
    frames = read_at_once(rows, GOLDEN_TOKENS, continues_prompt)
    np.testing.assert_array_equal(frames, E2E[f"{key}.generated_codes"])


def test_a_single_frame_that_the_reference_drops_is_a_frame():
    rows, continues_prompt = golden_answer("delay_at_once.silent")
    [frame] = read_at_once(rows, GOLDEN_TOKENS, continues_prompt)
    assert frame.tolist() == [rows[k][1 + k] for k in range(GOLDEN_TOKENS.n_vq)]


def test_rows_without_audio_hold_no_frames():
    rows, continues_prompt = golden_answer("no_audio_data.silent")
    assert not continues_prompt
    assert read_at_once(rows, GOLDEN_TOKENS, continues_prompt).shape == (0, GOLDEN_TOKENS.n_vq)


@given(
    n_vq=st.integers(1, 5),
    prompt_frames=st.none() | st.integers(0, 4),
    n_frames=st.integers(1, 12),
    n_words=st.integers(0, 3),
    steps=st.lists(st.integers(0, 6), max_size=12),
)
@settings(max_examples=150)
def test_any_schedule_of_arrival_gives_the_frames_that_were_spoken(n_vq, prompt_frames, n_frames, n_words, steps):
    tokens = special_tokens_of(n_vq, n_codes=7)
    prompt_codes = None if prompt_frames is None else random_frames(prompt_frames, tokens, seed=1)
    frames = random_frames(n_frames, tokens)
    progress = speech_request(tokens, prompt_codes)
    continues_prompt = prompt_codes is not None
    words = [] if continues_prompt else list(text_rows(n_words, tokens))
    rows = np.array([*words, *spoken_rows(progress, frames, tokens), *text_rows(2, tokens)])

    reader = FrameReader(tokens, continues_prompt)
    arrivals = [min(end, len(rows)) for end in np.cumsum(steps)] + [len(rows)]
    pieces = []
    for end in arrivals:
        due_at = reader.rows_until(1)
        pieces.append(reader.read(rows[:end]))
        assert end >= due_at or len(pieces[-1]) == 0
    np.testing.assert_array_equal(np.concatenate(pieces), frames)
    np.testing.assert_array_equal(read_at_once(rows, tokens, continues_prompt), frames)


@pytest.mark.parametrize("n_vq", [1, 2, 3])
def test_a_frame_is_read_with_the_row_that_makes_it_whole(n_vq):
    tokens = special_tokens_of(n_vq, n_codes=7)
    rows = np.array(spoken_rows(speech_request(tokens), random_frames(4, tokens), tokens))
    reader = FrameReader(tokens, continues_prompt=False)
    counts = [len(reader.read(rows[: n + 1])) for n in range(len(rows))]
    assert counts == [0] * n_vq + [1] * 4 + [0] * (len(rows) - 4 - n_vq)


def test_rows_of_a_continued_prompt_count_from_the_first():
    tokens = special_tokens_of(2, n_codes=7)
    rows = np.array([[tokens.gen_slot, 1, 2], [tokens.gen_slot, 3, 4]])
    assert read_at_once(rows, tokens, continues_prompt=True).tolist() == [[1, 4]]
    assert read_at_once(rows, tokens, continues_prompt=False).tolist() == []


@pytest.mark.parametrize("ending", ["audio_end", "im_end", "audio_start", "word"])
def test_audio_ends_before_the_first_row_that_is_no_slot_and_never_resumes(ending):
    tokens = special_tokens_of(2, n_codes=7)
    text_id = {"word": 10}.get(ending) or getattr(tokens, ending)
    frames = random_frames(3, tokens)
    spoken = spoken_rows(speech_request(tokens), frames, tokens)
    rows = np.array([*spoken[:-1], *text_rows(1, tokens, text_id), *spoken])
    np.testing.assert_array_equal(read_at_once(rows, tokens, continues_prompt=False), frames)
    reader = FrameReader(tokens, continues_prompt=False)
    reader.read(rows)
    assert reader.rows_until(1) == NEVER


@pytest.mark.parametrize("n_vq", [1, 3])
@pytest.mark.parametrize("n_frames", [1, 5])
def test_frames_are_whole_at_the_row_that_was_foretold(n_vq, n_frames):
    tokens = special_tokens_of(n_vq, n_codes=7)
    rows = np.array(spoken_rows(speech_request(tokens), random_frames(8, tokens), tokens))
    reader = FrameReader(tokens, continues_prompt=False)
    for n_before in range(4):
        assert len(reader.read(rows[: reader.rows_until(n_frames if n_before == 0 else 1)])) == (
            n_frames if n_before == 0 else 1
        )


def test_golden_prompts_with_references_end_in_audio():
    continued = {key: golden_answer(key)[1] for key in SERVED}
    assert {key for key, continues in continued.items() if not continues} == {
        key for key in SERVED if key.startswith("no_audio_data")
    }
