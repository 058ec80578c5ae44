"""The decoding step's kernels against plain torch, on all stages of the delay pattern and any mix of settings."""

import pytest
import torch
from slot_states import exact_values, random_state, special_tokens_within, tensors_of
from torch import Tensor
from triton_interpreter import DEVICE, INTERPRETED, in_interpreter_without_gpu

from sglang_moss.delay.state import allowed_text
from sglang_moss.step import eager as rows
from sglang_moss.step.kernels import step, text_draw
from sglang_moss.step.kernels.text_head import text_logits
from sglang_moss.step.slots import SlotState

N_SLOTS = 24
# n_vq, codes with the pad code, text vocabulary, hidden size
SHAPES = [(1, 10, 300, 32), (3, 38, 300, 48), (5, 65, 157, 130), (16, 1025, 300, 64), (32, 65, 64, 32)]
# The interpreter multiplies no bfloat16 matrices.
DTYPES = [torch.float32, torch.float16, *([] if INTERPRETED else [torch.bfloat16])]


class Case:
    """A state, its batch and what the model would give, twice over for two ways to step."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int = 0) -> None:
        n_vq, n_codes, vocab_size, d = shape
        self.tokens = special_tokens_within(vocab_size, n_vq, n_codes)
        self.states = [random_state(N_SLOTS, n_codes, self.tokens, DEVICE, seed) for _ in range(2)]
        order = torch.randperm(N_SLOTS - 1, generator=torch.Generator().manual_seed(seed)) + 1
        self.slots = torch.cat([order, torch.zeros(3, dtype=torch.int64)]).to(DEVICE)  # three entries of padding
        n = len(self.slots)
        after_prompt = torch.tensor([0, 1, n_vq, n_vq + 1, 70])[torch.arange(n) % 5].to(DEVICE)
        self.seq_lens = self.states[0].prompt_len[self.slots] + after_prompt
        ids = [getattr(self.tokens, name) for name in ("audio_start", "gen_slot", "delay_slot", "audio_end", "im_end")]
        self.text_ids = torch.tensor([*ids, 3])[torch.arange(n) * 5 % 6].to(DEVICE)
        self.text_table, self.text_head = (
            exact_values(vocab_size, d, seed=i, dtype=dtype, device=DEVICE) for i in (1, 2)
        )
        self.code_table = exact_values(n_vq * n_codes, d, seed=3, dtype=dtype, device=DEVICE)
        self.hidden = exact_values(n, d, seed=4, dtype=dtype, device=DEVICE)
        # Few different values, so that many tie.
        self.audio_logits = 4 * exact_values(n, n_vq, n_codes, seed=5, dtype=dtype, device=DEVICE)

    def begin(self, functions: object, state: SlotState) -> Tensor:
        return functions.begin_step(state, self.slots, self.text_ids, self.text_table, self.code_table)

    def finish(self, functions: object, state: SlotState) -> Tensor:
        return functions.finish_step(state, self.slots, self.seq_lens, self.hidden, self.text_head, self.audio_logits)


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int, int]:
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
def test_begin_step_moves_the_slots_and_embeds_their_rows_as_plain_torch_does(shape, dtype):
    case = Case(shape, dtype)
    plain, fast = case.states
    torch.testing.assert_close(case.begin(step, fast), case.begin(rows, plain), atol=0, rtol=0)
    for name, expected in tensors_of(plain).items():
        assert torch.equal(getattr(fast, name)[1:], expected[1:]), name
    for name, untouched in tensors_of(random_state(N_SLOTS, shape[1], case.tokens, DEVICE)).items():
        assert torch.equal(getattr(fast, name)[0], untouched[0]), name


def test_embed_rows_equals_plain_torch(shape):
    case = Case(shape, torch.float32)
    n_vq, n_codes, vocab_size, _ = shape
    generator = torch.Generator().manual_seed(9)
    prompt = torch.randint(min(vocab_size, n_codes), (11, 1 + n_vq), generator=generator).to(DEVICE)
    found, expected = (
        functions.embed_rows(prompt[:, 0], prompt[:, 1:], case.text_table, case.code_table)
        for functions in (step, rows)
    )
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_finish_step_draws_the_rows_that_plain_torch_draws(shape):
    case = Case(shape, torch.float32)
    plain, fast = case.states
    before = tensors_of(fast)
    found, expected = case.finish(step, fast), case.finish(rows, plain)
    assert torch.equal(found, expected)
    for name, value in before.items():
        changed = plain.codes if name == "codes" else value
        assert torch.equal(getattr(fast, name), changed), name


def test_a_vocabulary_of_several_blocks_draws_what_plain_torch_draws(monkeypatch):
    monkeypatch.setattr(text_draw, "_BLOCK_V", 128)
    case = Case((3, 38, 300, 48), torch.float32)
    plain, fast = case.states
    for state in case.states:
        state.audio_rows.zero_()
        state.flush_rows.zero_()
        state.last_audio_row.zero_()
        state.ended.zero_()
    found, expected = case.finish(step, fast), case.finish(rows, plain)
    assert torch.equal(found, expected)
    assert len(found[:, 0].unique()) > 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_text_logits_are_the_heads_where_the_vocabulary_is_wanted(shape, dtype):
    case = Case(shape, dtype)
    state = case.states[0]
    delay = state.delay_state(case.slots, case.seq_lens)
    wanted = (delay.audio_rows == 0) & (delay.last_audio_row == 0) & ~state.idle(case.slots)
    assert wanted.any()
    expected = torch.nn.functional.linear(case.hidden.float(), case.text_head.float()).to(dtype)
    expected = expected.masked_fill(~allowed_text(delay, shape[2], case.tokens), -torch.inf)
    found = text_logits(case.hidden, case.text_head, state, case.slots, case.seq_lens)
    assert torch.equal(found[wanted], expected[wanted])


def test_in_the_audio_no_more_than_two_rows_of_the_text_head_are_read():
    case = Case((3, 38, 300, 48), torch.float32)
    plain, fast = case.states
    delay = plain.delay_state(case.slots, case.seq_lens)
    inside = (delay.audio_rows > 0) | (delay.last_audio_row > 0) | plain.idle(case.slots)
    expected = case.finish(rows, plain)
    spoiled = torch.full_like(case.text_head, torch.nan)
    for row in (case.tokens.gen_slot, case.tokens.delay_slot):
        spoiled[row] = case.text_head[row]
    case.text_head = spoiled
    assert torch.equal(case.finish(step, fast)[inside], expected[inside])


def test_whatever_the_logits_hold_rows_stay_in_range(shape):
    case = Case(shape, torch.float32)
    case.hidden = torch.full_like(case.hidden, torch.nan)
    case.audio_logits = torch.full_like(case.audio_logits, torch.nan)
    drawn = case.finish(step, case.states[0])
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] < shape[2])).all()
    assert ((drawn[:, 1:] >= 0) & (drawn[:, 1:] < shape[1])).all()


in_interpreter_without_gpu(globals())
