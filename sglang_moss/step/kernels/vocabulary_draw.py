"""One draw from a line of logits that is too long for registers: passes over it in blocks, no sort.

The rule is that of `draws.draw_from_line`. Temperature is positive, so the logits rank as they stand; their keys are
cut to the bits that the dtype has.

Torch references: `sampling.filtered_probs`, `sampling.draw`.
"""

import triton
import triton.language as tl

from sglang_moss.step.kernels.draws import order_keys


@triton.jit
def draw_from_vocabulary(
    line_ptr, V, temperature, top_k, top_p, uniform_value, KEY_BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """Index of the drawn entry of the [V] logits at `line_ptr`, -inf where nothing may be drawn: int32 in [0, V)."""
    peaks = tl.full((BLOCK,), -float("inf"), tl.float32)
    for first in range(0, V, BLOCK):
        peaks = tl.maximum(peaks, _logits(line_ptr, first, V, BLOCK))
    largest = tl.max(peaks, axis=0)

    drawn = tl.full((), 2147483647, tl.int32)
    last = tl.full((), 0, tl.int32) + V - 1
    if temperature <= 0:
        for first in range(0, V, BLOCK):
            is_largest = _logits(line_ptr, first, V, BLOCK) == largest
            index = first + tl.arange(0, BLOCK)
            drawn = tl.minimum(drawn, tl.min(tl.where(is_largest, index, 2147483647), axis=0))
    else:
        kth = tl.full((), 0, tl.uint32)
        if (top_k > 0) & (top_k < V):
            kth = _kth_largest(line_ptr, V, top_k, KEY_BITS, BLOCK)
        total = _mass(line_ptr, V, temperature, largest, kth, KEY_BITS, BLOCK)
        lowest = tl.full((), 0, tl.uint32)
        above = tl.full((), 0.0, tl.float32)
        if top_p < 1:
            lowest = _lowest_within(line_ptr, V, temperature, largest, kth, total, top_p, KEY_BITS, BLOCK)
            above = _mass(line_ptr, V, temperature, largest, tl.maximum(kth, lowest + 1), KEY_BITS, BLOCK)
        n_ties = tl.full((), 0, tl.int32)
        kept_total = tl.full((), 0.0, tl.float32)
        for first in range(0, V, BLOCK):
            keys, weights = _keys_and_weights(line_ptr, first, V, temperature, largest, KEY_BITS, BLOCK)
            weights, n_ties = _keep(keys, weights, kth, lowest, n_ties, above, total, top_p)
            kept_total += tl.sum(weights, axis=0)

        n_ties = tl.full((), 0, tl.int32)
        running_before = tl.full((), 0.0, tl.float32)
        last = tl.full((), 0, tl.int32)
        for first in range(0, V, BLOCK):
            keys, weights = _keys_and_weights(line_ptr, first, V, temperature, largest, KEY_BITS, BLOCK)
            weights, n_ties = _keep(keys, weights, kth, lowest, n_ties, above, total, top_p)
            index = first + tl.arange(0, BLOCK)
            running = running_before + tl.cumsum(weights, axis=0)
            passed = (running > uniform_value * kept_total) & (weights > 0.0)
            drawn = tl.minimum(drawn, tl.min(tl.where(passed, index, 2147483647), axis=0))
            last = tl.maximum(last, tl.max(tl.where(weights > 0.0, index, 0), axis=0))
            running_before += tl.sum(weights, axis=0)
    return tl.minimum(drawn, last)


@triton.jit
def _logits(line_ptr, first, V, BLOCK: tl.constexpr):
    index = first + tl.arange(0, BLOCK)
    return tl.load(line_ptr + index, mask=index < V, other=-float("inf")).to(tl.float32)


@triton.jit
def _keys_and_weights(line_ptr, first, V, temperature, largest, KEY_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Keys of KEY_BITS bits in the order of the logits, and probabilities but for their sum."""
    logits = _logits(line_ptr, first, V, BLOCK)
    weights = tl.exp(tl.div_rn(logits, temperature) - tl.div_rn(largest, temperature))
    return order_keys(logits) >> (32 - KEY_BITS), weights


@triton.jit
def _keep(keys, weights, kth, lowest, n_ties, above, total, top_p):
    """Weights of what top-k and top-p leave, 0 elsewhere; `n_ties` entries before these had the key `lowest`."""
    ties = keys == lowest
    ties_before = n_ties + tl.cumsum(ties.to(tl.int32), axis=0) - 1
    within = (above + ties_before.to(tl.float32) * weights) / total <= top_p
    kept = (keys >= kth) & ((keys > lowest) | (ties & within))
    return tl.where(kept, weights, 0.0), n_ties + tl.sum(ties.to(tl.int32), axis=0)


@triton.jit
def _mass(line_ptr, V, temperature, largest, threshold, KEY_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of the weights whose key is at least `threshold`."""
    sums = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, V, BLOCK):
        keys, weights = _keys_and_weights(line_ptr, first, V, temperature, largest, KEY_BITS, BLOCK)
        sums += tl.where(keys >= threshold, weights, 0.0)
    return tl.sum(sums, axis=0)


@triton.jit
def _kth_largest(line_ptr, V, k, KEY_BITS: tl.constexpr, BLOCK: tl.constexpr):
    threshold = tl.full((), 0, tl.uint32)
    bit = tl.full((), 1, tl.uint32) << (KEY_BITS - 1)
    for _ in range(KEY_BITS):
        candidate = threshold | bit
        counts = tl.zeros((BLOCK,), tl.int32)
        for first in range(0, V, BLOCK):
            keys = order_keys(_logits(line_ptr, first, V, BLOCK)) >> (32 - KEY_BITS)
            counts += (keys >= candidate).to(tl.int32)
        threshold = tl.where(tl.sum(counts, axis=0) >= k, candidate, threshold)
        bit = bit >> 1
    return threshold


@triton.jit
def _lowest_within(line_ptr, V, temperature, largest, kth, total, top_p, KEY_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """The smallest key above which there is no more than `top_p` of what top-k has left."""
    threshold = tl.full((), 0, tl.uint32)
    bit = tl.full((), 1, tl.uint32) << (KEY_BITS - 1)
    for _ in range(KEY_BITS):
        candidate = threshold | bit
        mass = _mass(line_ptr, V, temperature, largest, tl.maximum(kth, candidate), KEY_BITS, BLOCK)
        threshold = tl.where(mass / total > top_p, candidate, threshold)
        bit = bit >> 1
    return threshold
