"""The delay state against the reference's scripted traces, and its own invariants."""

import numpy as np
import pytest
import torch
from golden_data import golden_json
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.layout import apply_delay
from sglang_moss.delay.state import DelayState, advance, allowed_text, open_codebooks, replay

TRACES = golden_json("state_machine/traces")
IDS = TRACES["token_ids"]
VOCAB_SIZE = 640
TOKENS = SpecialTokens(
    im_start=601,
    im_end=IDS["im_end"],
    text_pad=IDS["text_pad"],
    audio_start=IDS["audio_start"],
    audio_end=IDS["audio_end"],
    user_slot=611,
    gen_slot=IDS["gen_slot"],
    delay_slot=IDS["delay_slot"],
    pad_code=IDS["audio_pad_code"],
    n_vq=IDS["n_vq"],
)
# The reference's Hugging Face path starts outside audio when a prompt ends in delay slots; no prompt of ours ends so.
COMPARED = [t for t in TRACES["traces"] if t["name"] != "prompt_ends_in_delay"]


def state_of(audio_rows: int, flush_rows: int, row: int, last_audio_row: int = 0) -> DelayState:
    return DelayState(*(torch.tensor([n], dtype=torch.int32) for n in (audio_rows, flush_rows, row, last_audio_row)))


def text_ids_of(prompt: object) -> np.ndarray:
    return np.array([row[0] if isinstance(row, list) else row for row in prompt])


@pytest.mark.parametrize("trace", COMPARED, ids=lambda t: t["name"])
def test_masks_and_open_codebooks_equal_the_reference_until_the_audio_ends(trace):
    audio_rows, flush_rows = replay(text_ids_of(trace["prompt"]), TOKENS)
    for step in trace["hf"]["steps"]:
        state = state_of(audio_rows, flush_rows, step["step"])
        allowed = set(allowed_text(state, VOCAB_SIZE, TOKENS)[0].nonzero().flatten().tolist())
        if step["text_from"] == "forced":
            assert allowed == {step["text"]}
        elif "only" in step["allowed_text"]:
            assert allowed == set(step["allowed_text"]["only"])
        else:
            assert allowed == set(range(VOCAB_SIZE)) - set(step["allowed_text"]["all_except"])
        assert open_codebooks(state, TOKENS.n_vq)[0].int().tolist() == step["audio_sampled"]
        audio_rows, flush_rows = advance(audio_rows, flush_rows, step["text"], TOKENS)
        if step["text"] == TOKENS.audio_end:
            return


@given(
    st.lists(
        st.sampled_from([7, TOKENS.audio_start, TOKENS.gen_slot, TOKENS.delay_slot, TOKENS.audio_end]), max_size=40
    )
)
@settings(max_examples=300)
def test_replay_equals_folding_advance(text_ids):
    audio_rows = flush_rows = 0
    for text_id in text_ids:
        audio_rows, flush_rows = advance(audio_rows, flush_rows, text_id, TOKENS)
    assert replay(np.array(text_ids, dtype=np.int64), TOKENS) == (audio_rows, flush_rows)


@given(
    prompt_frames=st.integers(0, 40),
    budget=st.integers(1, 60),
    choice=st.integers(0, 10_000),
)
@settings(max_examples=60)
def test_a_frame_budget_gives_exactly_that_many_whole_frames_and_then_the_flush(prompt_frames, budget, choice):
    audio_rows = prompt_frames + 1 if prompt_frames else 0
    flush_rows = row = 0
    codes_per_codebook = np.zeros(TOKENS.n_vq, dtype=int)
    text_id = -1
    while text_id != TOKENS.audio_end:
        state = state_of(audio_rows, flush_rows, row, prompt_frames + budget)
        codes_per_codebook += open_codebooks(state, TOKENS.n_vq)[0].numpy()
        allowed = allowed_text(state, VOCAB_SIZE, TOKENS)[0].nonzero().flatten().tolist()
        text_id = allowed[choice % len(allowed)]
        audio_rows, flush_rows = advance(audio_rows, flush_rows, text_id, TOKENS)
        row += 1
    reopened = min(prompt_frames, TOKENS.n_vq - 1)  # tails of the prompt's last frames, drawn again
    expected = [budget + min(k, reopened) for k in range(TOKENS.n_vq)]
    assert codes_per_codebook.tolist() == expected
    assert row == budget + TOKENS.n_vq + (0 if prompt_frames else 1)


@given(
    audio_rows=st.integers(0, 50),
    flush_rows=st.integers(0, TOKENS.n_vq),
    row=st.integers(0, 40),
    last_audio_row=st.integers(0, 60),
)
@settings(max_examples=300)
def test_some_text_is_always_allowed(audio_rows, flush_rows, row, last_audio_row):
    assert allowed_text(state_of(audio_rows, flush_rows, row, last_audio_row), VOCAB_SIZE, TOKENS).any()


@given(n_frames=st.integers(0, 8), n_vq=st.integers(1, 5), dtype=st.sampled_from([np.int16, np.int32, np.int64]))
def test_each_codebook_is_written_as_many_rows_late_as_its_number(n_frames: int, n_vq: int, dtype: type):
    codes = np.arange(n_frames * n_vq, dtype=dtype).reshape(n_frames, n_vq)
    rows = apply_delay(codes, -1)
    assert rows.dtype == dtype
    expected = np.full((n_frames + n_vq - 1, n_vq), -1)
    for t in range(n_frames):
        for k in range(n_vq):
            expected[t + k, k] = codes[t, k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(apply_delay(np.asfortranarray(codes), -1), expected)
