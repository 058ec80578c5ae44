# pyright: reportCallIssue=false, reportArgumentType=false
"""Attention of one new row of every request over its cached rows; the rule is `attention.decode.attend`.

One program does all query heads of one key/value head of one request, as a running softmax over tiles of its rows.
Scores stand with the rows first, [N, G]: tensor cores take 8 columns and no less, 16 rows and no less, and the few
query heads of a group would leave most of 16 empty.

A cache in 8 bits is read two elements at a time: what moves elements of 16 bits from shared memory to the tensor cores
moves pairs of 8, and a pair becomes two float16 by shifts. Neither changes a value, since float16 holds all that e4m3
can; but its NaN, which torch makes of what is too large, becomes 480. So queries come in two halves, of
even and odd dimensions, and so do sums over the values.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

_LOG2_E = 1.4426950408889634
MAX_GROUP = 8  # query heads of one key/value head
# Rows of a tile, and warps, as measured on an H200. What is in 8 bits has little to wait for in a small tile, so where
# three programs for each of its 132 multiprocessors are all there are, they take larger ones.
_TILE = (64, 2)
_LARGE_TILE = (128, 4)
FEW_PROGRAMS = 384
_STAGES = 3
_EIGHT_BITS = torch.float8_e4m3fn  # SGLang takes another backend for the other format
CACHE_DTYPES = (torch.bfloat16, torch.float16, _EIGHT_BITS)
_TOO_SMALL = tl.constexpr(256.0)  # float16 whose exponent is that of e4m3
# Two pairs at once, as one register holds them.
_FIRST = tl.constexpr(
    "{ .reg .b32 a, s; shl.b32 a, $1, 7; and.b32 a, a, 0x3f803f80; "
    "shl.b32 s, $1, 8; and.b32 s, s, 0x80008000; or.b32 $0, a, s; }"
)
_SECOND = tl.constexpr(
    "{ .reg .b32 a, s; shr.b32 a, $1, 1; and.b32 a, a, 0x3f803f80; and.b32 s, $1, 0x80008000; or.b32 $0, a, s; }"
)


def attend(
    q: Tensor, key_cache: Tensor, value_cache: Tensor, page_table: Tensor, lengths: Tensor, score_scale: float
) -> Tensor:
    """As `attention.decode.attend`.

    Args:
        q: [B, HQ, D] bfloat16 or float16, contiguous; HQ is at most `MAX_GROUP` times HK, D a power of two from 32 on.
        key_cache: [pages, page_size, HK, D] of `CACHE_DTYPES`, contiguous from the second axis on.
        page_table: [B, W] int32, contiguous in its last axis.
    """
    n_requests, n_heads, head_dim = q.shape
    page_size, n_kv_heads = key_cache.shape[1:3]
    out = torch.empty_like(q)
    in_pairs = key_cache.dtype == _EIGHT_BITS
    tile, n_warps = _tile(n_requests * n_kv_heads, in_pairs)
    if in_pairs:
        key_cache, value_cache = key_cache.view(torch.int16), value_cache.view(torch.int16)
    kernel: Any = _attend_kernel[(n_kv_heads, n_requests)]
    kernel(
        q,
        key_cache,
        value_cache,
        page_table,
        lengths,
        out,
        page_table.stride(0),
        key_cache.stride(0),
        score_scale * _LOG2_E,
        PAGE=page_size,
        HEADS=n_kv_heads,
        GROUP=n_heads // n_kv_heads,
        COLUMNS=MAX_GROUP,
        D=head_dim,
        TILE=tile,
        STAGES=_STAGES,
        PER_UNIT=2 if in_pairs else 1,
        BY_TWO=not isinstance(_attend_kernel, InterpretedFunction),
        num_warps=n_warps,
    )
    return out


def _tile(n_programs: int, in_pairs: bool) -> tuple[int, int]:
    """Rows of a tile, and warps."""
    return _LARGE_TILE if in_pairs and n_programs <= FEW_PROGRAMS else _TILE


@triton.jit
def _halves(pairs, BY_TWO: tl.constexpr):
    """The first and the second of each pair of 8 bits, as float16 too small by `_TOO_SMALL`."""
    if BY_TWO:
        first = tl.inline_asm_elementwise(_FIRST, "=r,r", [pairs], dtype=tl.float16, is_pure=True, pack=2)
        second = tl.inline_asm_elementwise(_SECOND, "=r,r", [pairs], dtype=tl.float16, is_pure=True, pack=2)
    else:
        bits = pairs.to(tl.int32)
        first = (((bits & 0x7F) << 7) | ((bits & 0x80) << 8)).to(tl.int16).to(tl.float16, bitcast=True)
        second = (((bits >> 1) & 0x3F80) | (bits & 0x8000)).to(tl.int16).to(tl.float16, bitcast=True)
    return first, second


@triton.jit
def _add_scores(scores, largest, weight_sum):
    """One tile of [N, G] scores in the running softmax: its weights, and by what former sums fade."""
    new_largest = tl.maximum(largest, tl.max(scores, axis=0))
    weights = tl.exp2(scores - new_largest[None, :])
    fade = tl.exp2(largest - new_largest)
    return weights, fade, new_largest, weight_sum * fade + tl.sum(weights, axis=0)


@triton.jit
def _attend_kernel(
    q_ptr,
    key_ptr,
    value_ptr,
    table_ptr,
    length_ptr,
    out_ptr,
    table_stride,
    page_stride,
    score_scale,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    PER_UNIT: tl.constexpr,
    BY_TWO: tl.constexpr,
):
    head, request = tl.program_id(0), tl.program_id(1)
    length = tl.load(length_ptr + request)
    table_ptr += request.to(tl.int64) * table_stride
    column = tl.arange(0, COLUMNS)[None, :]
    exists = column < GROUP
    N_UNITS: tl.constexpr = D // PER_UNIT  # of a cached row of one head: elements, or pairs of them
    unit = tl.arange(0, N_UNITS)
    at_q = ((request * HEADS + head) * GROUP + column) * D + PER_UNIT * unit[:, None]
    q = tl.load(q_ptr + at_q, mask=exists, other=0.0)
    q_second = q
    if PER_UNIT == 2:
        q_second = tl.load(q_ptr + at_q + 1, mask=exists, other=0.0).to(tl.float16)
        q = q.to(tl.float16)
    total = tl.zeros([N_UNITS, COLUMNS], tl.float32)
    total_second = total
    largest = tl.full([COLUMNS], float("-inf"), tl.float32)
    weight_sum = tl.zeros([COLUMNS], tl.float32)
    for start in tl.range(0, length, TILE, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        row = start + tl.arange(0, TILE)
        is_row = row < length
        page = tl.load(table_ptr + row // PAGE, mask=is_row, other=0).to(tl.int64)
        at_row = page * page_stride + (row % PAGE * HEADS + head) * N_UNITS
        keys = tl.load(key_ptr + at_row[:, None] + unit[None, :], mask=is_row[:, None], other=0)
        values = tl.load(value_ptr + at_row[None, :] + unit[:, None], mask=is_row[None, :], other=0)
        if PER_UNIT == 2:
            keys_first, keys_second = _halves(keys, BY_TWO)
            scores = tl.dot(keys_second, q_second, tl.dot(keys_first, q)) * (score_scale * _TOO_SMALL)
        else:
            scores = tl.dot(keys, q) * score_scale
        scores = tl.where(is_row[:, None], scores, float("-inf"))
        weights, fade, largest, weight_sum = _add_scores(scores, largest, weight_sum)
        if PER_UNIT == 2:
            weights = weights.to(tl.float16)
            values_first, values_second = _halves(values, BY_TWO)
            total = tl.dot(values_first, weights, total * fade[None, :])
            total_second = tl.dot(values_second, weights, total_second * fade[None, :])
        else:
            total = tl.dot(values, weights.to(values.dtype), total * fade[None, :])
    scale = (_TOO_SMALL if PER_UNIT == 2 else 1.0) / weight_sum[None, :]
    tl.store(out_ptr + at_q, (total * scale).to(out_ptr.dtype.element_ty), mask=exists)
    if PER_UNIT == 2:
        tl.store(out_ptr + at_q + 1, (total_second * scale).to(out_ptr.dtype.element_ty), mask=exists)
