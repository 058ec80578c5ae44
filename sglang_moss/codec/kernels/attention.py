# pyright: reportCallIssue=false
"""Attention over the ring and the new rows, where they lie; the rule is `codec.attention.attend`.

    out = softmax(q k^T / sqrt(head_dim)) v     over the visible keys, as a running softmax over tiles of them

A query tile reads its history from the ring, oldest first, and then the new rows up to itself. Only rows that were
written and are real are loaded, all else counts as zero: what lies elsewhere in memory, NaN included, cannot be heard.
Scores and sums are float32; the weights are rounded to the values' dtype before their product.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.codec.ring import RingAccess, RingKV

_LOG2_E = 1.4426950408889634


@triton.jit
def _add_keys(q, k, v, visible, score_scale, total, weight_sum, largest, PRECISION: tl.constexpr):
    """One tile of keys: [M, D] queries, [N, D] keys and values, [M, N] what is visible; the running softmax."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * score_scale
    scores = tl.where(visible, scores, float("-inf"))
    new_largest = tl.maximum(largest, tl.max(scores, axis=1))
    # A row that has seen no visible key yet: -inf - -inf is NaN.
    reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
    weights = tl.exp2(scores - reference[:, None])
    fade = tl.exp2(largest - reference)
    total = total * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    return total, weight_sum * fade + tl.sum(weights, axis=1), new_largest


@triton.jit(do_not_specialize=["n_rows", "window"])
def _attention_kernel(
    qkv_ptr,
    ring_k_ptr,
    ring_v_ptr,
    slot_ptr,
    n_seen_ptr,
    n_real_ptr,
    out_ptr,
    n_rows,
    window,
    slot_stride,
    score_scale,
    n_heads,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program does a tile of queries of one head of one batch entry."""
    first, head, entry = tl.program_id(0) * BLOCK_M, tl.program_id(1), tl.program_id(2)
    n_real = tl.load(n_real_ptr + entry).to(tl.int32)
    if first < n_real:
        n_seen = tl.load(n_seen_ptr + entry).to(tl.int32)
        entry_row = entry.to(tl.int64) * n_rows
        query = first + tl.arange(0, BLOCK_M)
        d = tl.arange(0, BLOCK_D)
        q_at = (entry_row + query)[:, None] * (3 * n_heads * HEAD_DIM) + head * HEAD_DIM + d[None, :]
        is_query = (query < n_real)[:, None] & (d < HEAD_DIM)[None, :]
        q = tl.load(qkv_ptr + q_at, mask=is_query, other=0.0)
        total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        weight_sum = tl.zeros((BLOCK_M,), tl.float32)
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)

        slot_start = tl.load(slot_ptr + entry).to(tl.int64) * slot_stride
        oldest = tl.maximum(n_seen + first - window + 1, 0)
        for start in range(oldest, n_seen, BLOCK_N):
            position = start + tl.arange(0, BLOCK_N)
            at = ((position % window) * n_heads + head)[:, None] * HEAD_DIM + d[None, :]
            is_key = (position < n_seen)[:, None] & (d < HEAD_DIM)[None, :]
            k = tl.load(ring_k_ptr + slot_start + at, mask=is_key, other=0.0).to(q.dtype)
            v = tl.load(ring_v_ptr + slot_start + at, mask=is_key, other=0.0).to(q.dtype)
            distance = n_seen + query[:, None] - position[None, :]
            visible = (distance < window) & (position < n_seen)[None, :]
            total, weight_sum, largest = _add_keys(q, k, v, visible, score_scale, total, weight_sum, largest, PRECISION)

        end = tl.minimum(first + BLOCK_M, n_real)
        for start in range(tl.maximum(first - window + 1, 0), end, BLOCK_N):
            row = start + tl.arange(0, BLOCK_N)
            at = ((entry_row + row) * 3 + 1)[:, None] * (n_heads * HEAD_DIM) + head * HEAD_DIM + d[None, :]
            is_key = (row < end)[:, None] & (d < HEAD_DIM)[None, :]
            k = tl.load(qkv_ptr + at, mask=is_key, other=0.0)
            v = tl.load(qkv_ptr + at + n_heads * HEAD_DIM, mask=is_key, other=0.0)
            distance = query[:, None] - row[None, :]
            visible = (distance >= 0) & (distance < window)
            total, weight_sum, largest = _add_keys(q, k, v, visible, score_scale, total, weight_sum, largest, PRECISION)

        out_at = ((entry_row + query) * n_heads + head)[:, None] * HEAD_DIM + d[None, :]
        tl.store(out_ptr + out_at, total / weight_sum[:, None], mask=is_query)


def attend_in_ring(qkv: Tensor, ring: RingKV, access: RingAccess, precision: str = "ieee") -> Tensor:
    """Attention of each new row over its window of the ring's rows and the new ones, which it does not write.

    Args:
        qkv: [B, S, 3, H, head_dim] contiguous, queries and keys rotated.
        precision: of products of float32, as Triton's `dot` has it: "ieee", or "tf32x3" on tensor cores.
    Returns:
        [B, S, H, head_dim] in qkv's dtype; the padding rows hold anything.
    """
    n_batch, n_rows, _, n_heads, head_dim = qkv.shape
    assert qkv.is_contiguous()
    assert ring.k.stride() == ring.v.stride()
    assert ring.k[0].is_contiguous()
    out = torch.empty(n_batch, n_rows, n_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    is_half = qkv.element_size() == 2
    block_m = min(64 if is_half else 32, max(16, triton.next_power_of_2(n_rows)))  # what registers hold
    _attention_kernel[(triton.cdiv(n_rows, block_m), n_heads, n_batch)](
        qkv,
        ring.k,
        ring.v,
        access.slots,
        access.n_seen,
        access.n_real,
        out,
        n_rows,
        ring.window,
        ring.k.stride(0),
        head_dim**-0.5 * _LOG2_E,
        n_heads,
        HEAD_DIM=head_dim,
        BLOCK_M=block_m,
        BLOCK_N=64 if is_half else 32,
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        PRECISION=precision,
        num_warps=4,
        num_stages=3,
    )
    return out
