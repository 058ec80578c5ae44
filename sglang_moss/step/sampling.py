"""The sampling rule of every column of a row, and draws that depend on nothing but (seed, row, column).

Order of operations: temperature, repetition penalty, top-k, top-p on what is left. Everything is a tensor with one
entry per line of logits, so any mix of settings runs in one batch and one captured graph.

Source: MOSS-TTS `inference_utils.sample_token` and its filters (Hugging Face path).
"""

import torch
from torch import Tensor

_GOLDEN_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: splitmix64's increment
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_MANTISSA_BITS = 24


def filtered_probs(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Probabilities that are drawn from.

    Args:
        logits: [N, V] float32, -inf where an entry is not allowed, penalty applied (`penalise`).
        temperature: [N] float32; 0 or below puts everything on the largest logit (greedy).
        top_k: [N] int, 0 or below: off. Entries that tie with the k-th stay.
        top_p: [N] float32, 1 or above: off. The entry that crosses the threshold stays.
    Returns:
        [N, V] float32, each line sums to 1 up to rounding.
    """
    vocab_size = logits.shape[-1]
    greedy = temperature <= 0
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)

    k = torch.where(top_k > 0, top_k, vocab_size).clamp(max=vocab_size)
    k = torch.where(greedy, 1, k).long()
    smallest_kept = ranked.gather(-1, (k - 1)[:, None])
    ranked = ranked.masked_fill(ranked < smallest_kept, -torch.inf)

    probs = ranked.softmax(dim=-1)
    mass_before = probs.cumsum(dim=-1) - probs
    dropped = (mass_before > top_p[:, None]) & (top_p < 1)[:, None]
    dropped |= greedy[:, None] & (torch.arange(vocab_size, device=logits.device) > 0)
    probs = probs.masked_fill(dropped, 0.0)
    probs = probs / probs.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probs).scatter(-1, order, probs)


def scale(logits: Tensor, temperature: Tensor) -> Tensor:
    """[N, V] float32 logits over [N] temperatures; a greedy line (0 or below) is left as it is."""
    return logits / torch.where(temperature > 0, temperature, 1.0)[:, None]


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Repetition penalty: where `seen` [N, V] bool, divide positive logits by `penalty` [N] and multiply the others."""
    factor = penalty[:, None]
    return torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits)


def uniform(seed: Tensor, row: Tensor, channel: Tensor) -> Tensor:
    """Reproducible float32 in [0, 1), by broadcasting int64 `seed`, `row` and `channel`; the same on every device.

    `channel` is the row's column: 0 for the text id, k + 1 for codebook k. Three rounds of splitmix64's mixing, the top
    24 bits of the result.
    """
    bits = _mix(seed.long() + _GOLDEN_GAMMA)
    bits = _mix(bits + (row.long() + 1) * _GOLDEN_GAMMA)
    bits = _mix(bits + (channel.long() + 1) * _GOLDEN_GAMMA)
    top = _shift_right(bits, 64 - _MANTISSA_BITS)
    return top.float() * 2.0**-_MANTISSA_BITS


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """[N] int64: of each line of `probs` [N, V], the entry at which the running sum passes `uniforms` [N]."""
    running = probs.cumsum(dim=-1)
    target = uniforms * running[:, -1]
    return (running <= target[:, None]).sum(dim=-1).clamp(max=probs.shape[-1] - 1)


def _mix(bits: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 that wraps."""
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical shift of int64 (torch's own shift repeats the sign)."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
