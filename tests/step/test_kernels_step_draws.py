"""Draws in Triton against `sampling`: the same uniforms, and for every uniform the token whose interval it lies in."""

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton_interpreter import DEVICE, in_interpreter_without_gpu

from sglang_moss.step import sampling
from sglang_moss.step.kernels.draws import draw_from_line, order_keys, uniform
from sglang_moss.step.kernels.vocabulary_draw import draw_from_vocabulary

# Intervals are compared to this: both sides add probabilities in float32, in another order.
ROUNDING = 2e-6
KEY_BITS = {torch.float32: 32, torch.float16: 19, torch.bfloat16: 16}


@triton.jit
def _uniform_kernel(seed_ptr, row_ptr, channel_ptr, out_ptr):
    i = tl.program_id(0)
    tl.store(out_ptr + i, uniform(tl.load(seed_ptr + i), tl.load(row_ptr + i), tl.load(channel_ptr + i)))


@triton.jit
def _order_keys_kernel(values_ptr, out_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at, order_keys(tl.load(values_ptr + at)).to(tl.int64))


@triton.jit
def _draw_kernel(
    logits_ptr,
    temperature,
    top_k,
    top_p,
    uniforms_ptr,
    out_ptr,
    n_entries,
    IN_REGISTERS: tl.constexpr,
    KEY_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for each uniform; scaled logits in registers, or logits in blocks."""
    i = tl.program_id(0)
    u = tl.load(uniforms_ptr + i)
    if IN_REGISTERS:
        index = tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + index, mask=index < n_entries, other=-float("inf")).to(tl.float32)
        logits = tl.div_rn(logits, tl.where(temperature > 0, temperature, 1.0))
        drawn = draw_from_line(logits, index, n_entries, temperature, top_k, top_p, u)
    else:
        drawn = draw_from_vocabulary(logits_ptr, n_entries, temperature, top_k, top_p, u, KEY_BITS, BLOCK)
    tl.store(out_ptr + i, drawn)


def line_of(n_entries: int, spread: float, dtype: torch.dtype, seed: int) -> Tensor:
    """Logits [n_entries] of which many tie and some may not be drawn."""
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * spread * torch.randn(n_entries, generator=generator)).round() / 4
    logits[torch.rand(n_entries, generator=generator) < 0.2] = -torch.inf
    logits[0] = spread
    return logits.to(dtype)


def uniforms_within(probs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """`n` uniforms, near both ends and in the middle of intervals of drawn tokens, and these tokens."""
    high = probs.double().cumsum(0) / probs.double().sum()
    low = torch.cat([torch.zeros(1, dtype=torch.float64), high[:-1]])
    tokens = (high - low > 4 * ROUNDING).nonzero().flatten()
    low, high = low[tokens], high[tokens]
    uniforms = torch.stack([low + ROUNDING, high - ROUNDING, (low + high) / 2]).flatten().clamp(max=1 - 2.0**-24)
    chosen = torch.linspace(0, len(uniforms) - 1, n).long()
    return uniforms[chosen].float(), tokens.repeat(3)[chosen]


def drawn_by_kernel(
    logits: Tensor, temperature: float, top_k: int, top_p: float, uniforms: Tensor, block: int | None
) -> Tensor:
    """Tokens for `uniforms`; a `block` of None holds the whole line in registers."""
    out = torch.full((len(uniforms),), -1, dtype=torch.int32, device=DEVICE)
    _draw_kernel[(len(uniforms),)](
        logits.to(DEVICE),
        temperature,
        top_k,
        top_p,
        uniforms.to(DEVICE),
        out,
        len(logits),
        IN_REGISTERS=block is None,
        KEY_BITS=KEY_BITS[logits.dtype],
        BLOCK=block or triton.next_power_of_2(len(logits)),
    )
    return out.cpu().long()


def probs_of(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    at = torch.tensor([temperature])
    scaled = sampling.scale(logits.float()[None], at)
    return sampling.filtered_probs(scaled, at, torch.tensor([top_k]), torch.tensor([top_p]))[0]


def test_uniforms_equal_plain_torch_bit_by_bit():
    generator = torch.Generator().manual_seed(0)
    seeds = torch.cat([torch.tensor([0, 1, 2**63 - 1]), torch.randint(2**63 - 1, (61,), generator=generator)])
    row = torch.arange(64, dtype=torch.int32) * 700
    channel = torch.arange(64, dtype=torch.int32) % 33
    out = torch.empty(64, device=DEVICE)
    _uniform_kernel[(64,)](seeds.to(DEVICE), row.to(DEVICE), channel.to(DEVICE), out)
    assert torch.equal(out.cpu(), sampling.uniform(seeds, row, channel))


def test_keys_are_in_the_order_of_floats_and_equal_for_equal_ones():
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-120, 120, (120,), generator=generator)
    values = torch.randn(120, generator=generator) * 2.0**exponents
    values = torch.cat([values, torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, torch.inf, -torch.inf])])
    keys = torch.empty(128, dtype=torch.int64, device=DEVICE)
    _order_keys_kernel[(1,)](values.to(DEVICE), keys, BLOCK=128)
    keys = keys.cpu()
    assert torch.equal(keys[:, None] < keys, values[:, None] < values)
    assert (keys > 0).all()


SETTINGS = [
    (1.1, 50, 0.9),
    (0.0, 50, 0.9),
    (1.0, -1, 1.0),
    (0.7, 5, 1.0),
    (2.0, -1, 0.5),
    (1.3, 1, 1.0),
    (1.0, 10**9, 0.05),
    (3.0, 20, 0.97),
]


def check(n_entries: int, spread: float, dtype: torch.dtype, n_uniforms: int, block: int | None) -> None:
    for seed, (temperature, top_k, top_p) in enumerate(SETTINGS):
        logits = line_of(n_entries, spread, dtype, seed)
        uniforms, tokens = uniforms_within(probs_of(logits, temperature, top_k, top_p), n_uniforms)
        assert torch.equal(drawn_by_kernel(logits, temperature, top_k, top_p, uniforms, block), tokens)


LINES = [(1, 1.0), (2, 0.5), (37, 0.3), (37, 3.0), (64, 1.0), (300, 2.0), (1024, 1.0), (1025, 4.0)]


@pytest.mark.parametrize(("n_entries", "spread"), LINES)
def test_every_uniform_draws_the_token_in_whose_interval_it_lies(n_entries, spread):
    check(n_entries, spread, torch.bfloat16, n_uniforms=9, block=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n_entries", "spread", "block"), [(2, 0.5, 2), (37, 0.3, 32), (300, 2.0, 256)])
def test_every_uniform_draws_the_same_from_a_line_in_blocks(n_entries, spread, block, dtype):
    check(n_entries, spread, dtype, n_uniforms=4, block=block)


def test_greedy_takes_the_first_of_the_largest():
    logits = torch.tensor([0.5, 2.0, -1.0, 2.0, 2.0])
    for block in (None, 2):
        assert drawn_by_kernel(logits, 0.0, -1, 1.0, torch.tensor([0.99]), block).tolist() == [1]


def test_top_p_keeps_the_first_of_those_that_tie():
    uniforms = torch.arange(1, 16) / 16
    for block in (None, 4):
        drawn = drawn_by_kernel(torch.zeros(8), 1.0, -1, 0.3, uniforms, block)
        assert drawn.tolist() == [0] * 5 + [1] * 5 + [2] * 5


in_interpreter_without_gpu(globals())
