"""Functions that the drawing kernels share: uniforms, order-preserving keys, and one draw from a line in registers.

Torch references: `sampling.uniform`, `sampling.filtered_probs`, `sampling.draw`.
"""

import triton
import triton.language as tl

_GOLDEN_GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_2 = tl.constexpr(0x94D049BB133111EB)
_SIGN = tl.constexpr(-(2**31))
_KEY_BITS = tl.constexpr(32)


@triton.jit
def uniform(seed, row, channel):
    """`sampling.uniform` of scalars, bit by bit."""
    bits = _mix(seed.to(tl.uint64) + _GOLDEN_GAMMA)
    bits = _mix(bits + (row.to(tl.uint64) + 1) * _GOLDEN_GAMMA)
    bits = _mix(bits + (channel.to(tl.uint64) + 1) * _GOLDEN_GAMMA)
    return (bits >> 40).to(tl.int32).to(tl.float32) * (1.0 / 16777216.0)


@triton.jit
def _mix(bits):
    bits = (bits ^ (bits >> 30)) * _MIX_1
    bits = (bits ^ (bits >> 27)) * _MIX_2
    return bits ^ (bits >> 31)


@triton.jit
def order_keys(values):
    """uint32 in the order of the float32 `values`; equal floats get equal keys, and every key is above 0."""
    values = tl.where(values == 0.0, 0.0, values)  # -0.0 equals 0.0
    bits = values.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, ~bits, bits ^ _SIGN).to(tl.uint32, bitcast=True)


@triton.jit
def draw_from_line(logits, index, n_entries, temperature, top_k, top_p, uniform_value):
    """The index that `sampling.filtered_probs` and `sampling.draw` give for one line.

    No sort: the k-th largest logit and the smallest one within top-p are found bit by bit, as the largest key that
    enough entries, or enough probability, lie at or above.

    Args:
        logits: [BLOCK] float32, scaled and penalised; -inf where nothing may be drawn, also from `n_entries` on.
        index: [BLOCK] int32, 0 to BLOCK - 1.
    Returns:
        int32 in [0, BLOCK), whatever the logits hold.
    """
    largest = tl.max(logits, axis=0)
    if temperature <= 0:
        drawn = _first(logits == largest, index)
    else:
        keys = tl.where(index < n_entries, order_keys(logits), 0)
        weights = tl.exp(logits - largest)
        if (top_k > 0) & (top_k < n_entries):
            weights = tl.where(keys >= _kth_largest(keys, top_k), weights, 0.0)
        if top_p < 1:
            probs = weights / tl.sum(weights, axis=0)
            lowest = _lowest_within(keys, probs, top_p)
            ties = keys == lowest
            above = tl.sum(tl.where(keys > lowest, probs, 0.0), axis=0)
            ties_before = (tl.cumsum(ties.to(tl.int32), axis=0) - 1).to(tl.float32)
            kept = (keys > lowest) | (ties & (above + ties_before * probs <= top_p))
            weights = tl.where(kept, weights, 0.0)
        running = tl.cumsum(weights, axis=0)
        # A parallel sum is not quite monotone: only entries that have a weight may be drawn.
        passed = (running > uniform_value * tl.max(running, axis=0)) & (weights > 0.0)
        last = tl.max(tl.where(weights > 0.0, index, 0), axis=0)
        drawn = tl.minimum(_first(passed, index), last)
    return tl.minimum(drawn, n_entries - 1)


@triton.jit
def _first(flags, index):
    """The smallest index whose flag is set; int32's largest if none is."""
    return tl.min(tl.where(flags, index, 2147483647), axis=0)


@triton.jit
def _kth_largest(keys, k):
    threshold = tl.full((), 0, tl.uint32)
    bit = tl.full((), 2147483648, tl.uint32)
    for _ in range(_KEY_BITS):
        candidate = threshold | bit
        n_above = tl.sum((keys >= candidate).to(tl.int32), axis=0)
        threshold = tl.where(n_above >= k, candidate, threshold)
        bit = bit >> 1
    return threshold


@triton.jit
def _lowest_within(keys, probs, top_p):
    """The smallest key above which there is no more than `top_p`."""
    threshold = tl.full((), 0, tl.uint32)
    bit = tl.full((), 2147483648, tl.uint32)
    for _ in range(_KEY_BITS):
        candidate = threshold | bit
        mass = tl.sum(tl.where(keys >= candidate, probs, 0.0), axis=0)
        threshold = tl.where(mass > top_p, candidate, threshold)
        bit = bit >> 1
    return threshold
