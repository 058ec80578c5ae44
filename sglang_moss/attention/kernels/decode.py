# pyright: reportCallIssue=false, reportArgumentType=false
"""Attention of one new row of every request over its cached rows; the rule is `attention.decode.attend`.

One program does all query heads of one key/value head of one request, as a running softmax over tiles of its rows.
Scores stand with the rows first, [N, G]: tensor cores take 8 columns and no less, 16 rows and no less, and the few
query heads of a group would leave most of 16 empty.

A cache in 8 bits becomes float16 in registers, which holds all that e4m3 can. Its values are read two elements at a
time, since what turns elements of 16 bits around on their way from shared memory to the tensor cores turns pairs of 8:
sums over them come in two halves, of even and odd dimensions.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

_LOG2_E = 1.4426950408889634
MAX_GROUP = 8  # query heads of one key/value head
# Rows of a tile, warps, and stages, of which two are for page numbers: they have to be there before their rows can be
# asked for. Where programs are few, three for each of an H200's 132 multiprocessors at most, each has to have more on
# its way: over 8 bits, on an H100, 64 rows are faster than 32 with 32 requests of 8 heads, and slower with 128.
_TILE = (64, 2, 3)
_TILE_OF_PAIRS = (32, 2, 5)
_LARGE_TILE = (64, 2, 5)
FEW_PROGRAMS = 384
_EIGHT_BITS = torch.float8_e4m3fn  # SGLang takes another backend for the other format
CACHE_DTYPES = (torch.bfloat16, torch.float16, _EIGHT_BITS)
# Of two pairs, as one register holds them, the first elements or the second.
_FIRST = tl.constexpr(
    "{ .reg .b32 two; .reg .b16 low, high; prmt.b32 two, $1, 0, 0x4420; mov.b32 {low, high}, two; "
    "cvt.rn.f16x2.e4m3x2 $0, low; }"
)
_SECOND = tl.constexpr(
    "{ .reg .b32 two; .reg .b16 low, high; prmt.b32 two, $1, 0, 0x4431; mov.b32 {low, high}, two; "
    "cvt.rn.f16x2.e4m3x2 $0, low; }"
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
    tile, n_warps, n_stages = _tile(n_requests * n_kv_heads, in_pairs)
    if in_pairs:
        value_cache = value_cache.view(torch.int16)
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
        STAGES=n_stages,
        PER_UNIT=2 if in_pairs else 1,
        BY_TWO=not isinstance(_attend_kernel, InterpretedFunction),
        num_warps=n_warps,
    )
    return out


def _tile(n_programs: int, in_pairs: bool) -> tuple[int, int, int]:
    """Rows of a tile, warps, and stages."""
    if not in_pairs:
        return _TILE
    return _LARGE_TILE if n_programs <= FEW_PROGRAMS else _TILE_OF_PAIRS


@triton.jit
def _halves(pairs, BY_TWO: tl.constexpr):
    """The first and the second of each pair of 8 bits, as float16."""
    if BY_TWO:
        first = tl.inline_asm_elementwise(_FIRST, "=r,r", [pairs], dtype=tl.float16, is_pure=True, pack=2)
        second = tl.inline_asm_elementwise(_SECOND, "=r,r", [pairs], dtype=tl.float16, is_pure=True, pack=2)
    else:
        first = (pairs & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
        second = ((pairs >> 8) & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
    return first, second


@triton.jit
def _add_scores(scores, largest, weight_sums):
    """One tile of [N, G] scores in the running softmax: its weights, and by what former sums fade.

    Weights are added up by row of a tile: sums over its rows would have warps wait for one another.
    """
    new_largest = tl.maximum(largest, tl.max(scores, axis=0))
    weights = tl.exp2(scores - new_largest[None, :])
    fade = tl.exp2(largest - new_largest)
    return weights, fade, new_largest, weight_sums * fade[None, :] + weights


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
    UNITS: tl.constexpr = D // PER_UNIT  # of the values of a row of one head: elements, or pairs of them
    dim, unit = tl.arange(0, D), tl.arange(0, UNITS)
    at_q = ((request * HEADS + head) * GROUP + column) * D
    q = tl.load(q_ptr + at_q + dim[:, None], mask=exists, other=0.0)
    if PER_UNIT == 2:
        q = q.to(tl.float16)
    total = tl.zeros([UNITS, COLUMNS], tl.float32)
    total_second = total
    largest = tl.full([COLUMNS], float("-inf"), tl.float32)
    weight_sums = tl.zeros([TILE, COLUMNS], tl.float32)
    for start in tl.range(0, length, TILE, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        row = start + tl.arange(0, TILE)
        is_row = row < length
        page = tl.load(table_ptr + row // PAGE, mask=is_row, other=0).to(tl.int64)
        at_row = page * page_stride + (row % PAGE * HEADS + head) * D
        keys = tl.load(key_ptr + at_row[:, None] + dim[None, :], mask=is_row[:, None], other=0.0)
        at_value = at_row // PER_UNIT
        values = tl.load(value_ptr + at_value[None, :] + unit[:, None], mask=is_row[None, :], other=0)
        scores = tl.dot(keys.to(q.dtype), q) * score_scale
        scores = tl.where(is_row[:, None], scores, float("-inf"))
        weights, fade, largest, weight_sums = _add_scores(scores, largest, weight_sums)
        if PER_UNIT == 2:
            weights = weights.to(tl.float16)
            values_first, values_second = _halves(values, BY_TWO)
            total = tl.dot(values_first, weights, total * fade[None, :])
            total_second = tl.dot(values_second, weights, total_second * fade[None, :])
        else:
            total = tl.dot(values, weights.to(values.dtype), total * fade[None, :])
    weight_sum = tl.sum(weight_sums, axis=0)
    at_out = out_ptr + at_q + PER_UNIT * unit[:, None]
    tl.store(at_out, (total / weight_sum[None, :]).to(out_ptr.dtype.element_ty), mask=exists)
    if PER_UNIT == 2:
        tl.store(at_out + 1, (total_second / weight_sum[None, :]).to(out_ptr.dtype.element_ty), mask=exists)
