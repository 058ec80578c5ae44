"""Slot state and drawing on random logits: what a request gets depends on nothing but itself."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_requests import TEXT_VOCAB, random_frames, special_tokens_of, speech_request
from torch import Tensor

from sglang_moss.config import SpecialTokens
from sglang_moss.decode.frames import FrameReader
from sglang_moss.request.speech import SpeechProgress
from sglang_moss.step.eager import draw_rows
from sglang_moss.step.slots import SlotState

torch.set_num_threads(1)

N_CODES = 9
N_SLOTS = 6
PADDING_SLOT = 0
N_VQS = [1, 2, 3, 5]
# Settings as different as they may be; those that leave the text to the model mostly start audio after a few rows.
SETTINGS = (
    {},
    {"temperature": 0.0, "repetition_penalty": 1.7},
    {"temperature": 2.0, "top_k": 3, "top_p": 1.0, "repetition_penalty": 1.0},
    {"ignore_eos": True, "max_new_tokens": 4, "top_k": -1},
    {"custom_params": {"text_temperature": 0.0, "text_top_k": 1}, "top_p": 0.3},
)


def requests_of(tokens: SpecialTokens) -> list[SpeechProgress]:
    """One request for each of `SETTINGS`, every other one with a prompt that opens the audio."""
    return [
        speech_request(
            tokens,
            random_frames(2 + i, tokens, seed=i) if i % 2 else None,
            n_words=1 + i,
            sampling_seed=(2**63 - 1) // (i + 1),
            **setting,
        )
        for i, setting in enumerate(SETTINGS)
    ]


def new_state(tokens: SpecialTokens, n_slots: int = N_SLOTS) -> SlotState:
    return SlotState(n_slots, N_CODES, tokens, torch.device("cpu"))


def tensors_of(state: SlotState) -> dict[str, Tensor]:
    return {name: value for name, value in vars(state).items() if isinstance(value, Tensor)}


def slot_of(state: SlotState, slot: int) -> dict[str, list]:
    return {name: tensor[slot].tolist() for name, tensor in tensors_of(state).items()}


def random_logits(seed: int, row: int, n_vq: int) -> tuple[Tensor, Tensor]:
    """Text [V] and audio [n_vq, N_CODES + 1] logits: what a model would say to one request after so many rows."""
    generator = torch.Generator().manual_seed(1000 * (seed % 997) + row)
    return 3 * torch.randn(TEXT_VOCAB, generator=generator), 3 * torch.randn(n_vq, N_CODES + 1, generator=generator)


def step(state: SlotState, slots: Sequence[int], requests: Sequence[SpeechProgress], n_padding: int = 0) -> None:
    """One forward pass for requests of which each starts its slot now (no rows, or taken back) or goes on in it."""
    n_vq = state.tokens.n_vq
    starting = [i for i, request in enumerate(requests) if not request.rows]
    going_on = [i for i, request in enumerate(requests) if request.rows]
    at = torch.tensor([slots[i] for i in going_on] + [PADDING_SLOT] * n_padding)
    text_ids = [int(requests[i].rows[-1][0]) for i in going_on] + [state.tokens.delay_slot] * n_padding
    if len(at):
        state.advance(at, torch.tensor(text_ids))
    if starting:
        state.start(torch.tensor([slots[i] for i in starting]), [requests[i] for i in starting])
    seeds = [request.request.options.seed for request in requests]
    logits = [random_logits(s, len(r.rows), n_vq) for s, r in zip(seeds, requests, strict=True)]
    logits += [random_logits(i, len(requests[0].rows), n_vq) for i in range(n_padding)]
    seq_lens = [len(r.request.prompt.rows) + len(r.rows) for r in requests] + [1] * n_padding
    batch = torch.tensor([*slots, *[PADDING_SLOT] * n_padding])
    text, audio = (torch.stack(parts) for parts in zip(*logits, strict=True))
    rows = draw_rows(text, audio, state, batch, torch.tensor(seq_lens))
    state.write(batch, rows[:, 1:])
    assert ((rows[:, 0] >= 0) & (rows[:, 0] < TEXT_VOCAB)).all()
    assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= N_CODES)).all()
    for request, row in zip(requests, rows.numpy(), strict=False):
        request.rows.append(row.copy())


def rows_alone(tokens: SpecialTokens, i: int, n_rows: int) -> np.ndarray:
    """Rows of request i in a state of its own."""
    state, request = new_state(tokens, n_slots=2), requests_of(tokens)[i]
    for _ in range(n_rows):
        step(state, [1], [request])
    return np.stack(request.rows)


@pytest.mark.parametrize("n_vq", N_VQS)
def test_a_batch_of_mixed_settings_equals_each_request_alone(n_vq):
    tokens = special_tokens_of(n_vq, N_CODES)
    state, requests, slots = new_state(tokens), requests_of(tokens), [4, 2, 5, 1, 3]
    for now in range(30):  # they come one by one, and the order in the batch changes all the time
        running = [i for i in range(len(requests)) if now >= 3 * i]
        running = running[now % len(running) :] + running[: now % len(running)]
        step(state, [slots[i] for i in running], [requests[i] for i in running], n_padding=now % 3)
    for i, request in enumerate(requests):
        np.testing.assert_array_equal(np.stack(request.rows), rows_alone(tokens, i, len(request.rows)))


@pytest.mark.parametrize("n_vq", N_VQS)
def test_a_reused_slot_equals_a_fresh_one(n_vq):
    tokens = special_tokens_of(n_vq, N_CODES)
    reused = new_state(tokens)
    for i in range(len(SETTINGS)):
        request, fresh = requests_of(tokens)[i], new_state(tokens)
        same = requests_of(tokens)[i]
        for _ in range(12):
            step(reused, [3], [request])
            step(fresh, [3], [same])
            assert slot_of(reused, 3) == slot_of(fresh, 3)
        np.testing.assert_array_equal(request.rows, same.rows)


@pytest.mark.parametrize("n_vq", N_VQS)
def test_padding_entries_leave_live_slots_unchanged_and_stay_in_range(n_vq):
    tokens = special_tokens_of(n_vq, N_CODES)
    plain, padded = new_state(tokens), new_state(tokens)
    request, same = requests_of(tokens)[3], requests_of(tokens)[3]
    for now in range(40):
        step(plain, [2], [request])
        step(padded, [2], [same], n_padding=1 + now % 4)
        for slot in range(1, N_SLOTS):
            assert slot_of(plain, slot) == slot_of(padded, slot)
    np.testing.assert_array_equal(request.rows, same.rows)


@given(n_vq=st.sampled_from(N_VQS), i=st.integers(0, len(SETTINGS) - 1), n_accepted=st.integers(1, 25))
@settings(max_examples=60)
def test_starting_after_accepted_rows_equals_having_decoded_them(n_vq, i, n_accepted):
    tokens = special_tokens_of(n_vq, N_CODES)
    decoded, request = new_state(tokens), requests_of(tokens)[i]
    for _ in range(n_accepted):
        step(decoded, [2], [request])
    decoded.advance(torch.tensor([2]), torch.tensor([request.rows[-1][0]]))

    prefilled_again = new_state(tokens)
    other = requests_of(tokens)[(i + 1) % len(SETTINGS)]
    step(prefilled_again, [5], [other])  # the slot that it gets now belonged to somebody else
    prefilled_again.start(torch.tensor([5]), [request])
    assert slot_of(prefilled_again, 5) == slot_of(decoded, 2)


def test_padding_draws_nothing_and_its_slot_never_changes_whatever_text_id_is_left_there():
    tokens = special_tokens_of(3, N_CODES)
    state, before = new_state(tokens), new_state(tokens)
    slots = torch.zeros(8, dtype=torch.int64)
    for text_id in (tokens.audio_start, tokens.gen_slot, tokens.delay_slot, tokens.audio_end, 9):
        state.advance(slots, torch.full((8,), text_id))
        text, audio = random_logits(text_id, 0, 3)
        drawn = draw_rows(text.expand(8, -1), audio.expand(8, -1, -1), state, slots, torch.ones(8))
        assert (drawn == torch.tensor([tokens.text_pad] + [tokens.pad_code] * 3)).all()
        state.write(slots, drawn[:, 1:])
    before.seen[PADDING_SLOT, :, tokens.pad_code] = True
    assert slot_of(state, PADDING_SLOT) == slot_of(before, PADDING_SLOT)


@pytest.mark.parametrize("last", ["audio_end", "im_end"])
def test_after_its_end_a_request_draws_padding(last):
    tokens = special_tokens_of(3, N_CODES)
    state, request = new_state(tokens), requests_of(tokens)[0]
    step(state, [1], [request])
    state.advance(torch.tensor([1]), torch.tensor([getattr(tokens, last)]))
    text, audio = random_logits(0, 0, 3)
    drawn = draw_rows(text[None], audio[None], state, torch.tensor([1]), torch.tensor([5]))
    assert drawn.tolist() == [[tokens.text_pad] + [tokens.pad_code] * 3]


def test_starting_leaves_other_slots_alone():
    tokens = special_tokens_of(3, N_CODES)
    state, requests = new_state(tokens), requests_of(tokens)
    step(state, [2, 4], requests[:2])
    before = {slot: slot_of(state, slot) for slot in (0, 1, 2, 3, 4)}
    state.start(torch.tensor([5]), [requests[2]])
    assert {slot: slot_of(state, slot) for slot in before} == before


def draw_flat(tokens: SpecialTokens, request: SpeechProgress, slot: int, batch: int) -> np.ndarray:
    """The next row [1 + n_vq] of a request where every logit is the same, `batch` times in the batch."""
    state = new_state(tokens)
    state.start(torch.tensor([slot]), [request])
    length = len(request.request.prompt.rows) + len(request.rows)
    slots, seq_lens = torch.full((batch,), slot), torch.full((batch,), length)
    rows = draw_rows(
        torch.zeros(batch, TEXT_VOCAB), torch.zeros(batch, tokens.n_vq, N_CODES + 1), state, slots, seq_lens
    )
    assert (rows == rows[0]).all()
    return rows[0].numpy()


@given(seed=st.integers(0, 2**63 - 1), row=st.integers(0, 30), slot=st.integers(1, 5), batch=st.integers(1, 4))
@settings(max_examples=60)
def test_draws_depend_on_seed_row_and_codebook_alone(seed, row, slot, batch):
    tokens = special_tokens_of(4, N_CODES)
    flat = {"sampling_seed": seed, "temperature": 1.0, "top_k": -1, "top_p": 1.0, "repetition_penalty": 1.0}
    here, there = (
        speech_request(tokens, random_frames(n, tokens, seed=n), n_words=n, ignore_eos=True, max_new_tokens=60, **flat)
        for n in (5, 8)
    )
    for request, codes in ((here, [1, 2, 3, 4]), (there, [8, 7, 6, 5])):
        request.rows.extend([np.array([tokens.gen_slot, *codes])] * row)
    np.testing.assert_array_equal(draw_flat(tokens, here, slot, batch), draw_flat(tokens, there, 1, 1))


def test_draws_of_other_seeds_rows_and_codebooks_differ():
    tokens = special_tokens_of(8, N_CODES)
    flat = {"temperature": 1.0, "top_k": -1, "top_p": 1.0, "repetition_penalty": 1.0}
    drawn = []
    for seed in range(4):
        request = speech_request(tokens, random_frames(9, tokens), sampling_seed=seed, **flat)
        for _ in range(4):
            drawn.append(draw_flat(tokens, request, 1, 1)[1:])
            request.rows.append(np.array([tokens.gen_slot, *drawn[-1]]))
    assert len({tuple(row) for row in drawn}) == len(drawn)
    assert all(len(set(column)) > 3 for column in np.transpose(drawn))
    assert all(len(set(row)) > 1 for row in drawn)


@pytest.mark.parametrize("n_vq", N_VQS)
@pytest.mark.parametrize("prompt_frames", [None, 0, 1, 4])
@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_a_fixed_length_gives_exactly_so_many_frames(n_vq, prompt_frames, n_frames):
    tokens = special_tokens_of(n_vq, N_CODES)
    prompt = None if prompt_frames is None else random_frames(prompt_frames, tokens)
    request = speech_request(tokens, prompt, max_new_tokens=n_frames, ignore_eos=True)
    state = new_state(tokens)
    while not request.rows or request.rows[-1][0] != tokens.audio_end:
        step(state, [1], [request])
    assert len(request.rows) == n_frames + n_vq + (prompt is None)
    assert len(FrameReader(tokens, continues_prompt=prompt is not None).read(request.rows)) == n_frames


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-7, 1e-6, 1e-3, 100])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 2.0])
def test_extreme_settings_draw_only_what_is_allowed(temperature, penalty):
    tokens = special_tokens_of(3, N_CODES)
    extremes = {"temperature": temperature, "repetition_penalty": penalty, "top_k": -1, "top_p": 1.0}
    request = speech_request(tokens, random_frames(5, tokens), ignore_eos=True, max_new_tokens=9, **extremes)
    state = new_state(tokens)
    for _ in range(4):
        step(state, [1], [request])
        assert request.rows[-1][0] == tokens.gen_slot
        assert (request.rows[-1][1:] < tokens.pad_code).all()


def test_the_first_codebook_has_its_own_penalty_history_and_the_others_share_one():
    tokens = special_tokens_of(3, N_CODES)
    prompt = np.array([[1, 2, 3]] * 4)  # three whole frames' rows: codebook 0 has seen 1, the others 2 and 3
    request = speech_request(tokens, prompt, temperature=0.0, repetition_penalty=2.0)
    state = new_state(tokens)
    state.start(torch.tensor([1]), [request])
    logits = torch.zeros(1, 3, N_CODES + 1)
    logits[0, :, [1, 2, 3, 4]] = torch.tensor([4.0, 3.9, 3.8, 3.0])
    rows = draw_rows(torch.zeros(1, TEXT_VOCAB), logits, state, torch.tensor([1]), torch.tensor([8]))
    assert rows[0, 1:].tolist() == [2, 1, 1]


def test_a_request_without_speech_gets_a_silent_greedy_slot():
    tokens = special_tokens_of(2, N_CODES)
    state = new_state(tokens)
    step(state, [3], [requests_of(tokens)[1]])
    state.start(torch.tensor([3]), [None])
    text_logits = torch.arange(TEXT_VOCAB).float()[None]
    rows = draw_rows(text_logits, torch.zeros(1, 2, N_CODES + 1), state, torch.tensor([3]), torch.tensor([1]))
    assert rows.tolist() == [[TEXT_VOCAB - 1, N_CODES, N_CODES]]
