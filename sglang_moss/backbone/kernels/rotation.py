# pyright: reportCallIssue=false, reportArgumentType=false
"""Norm, rotation and caching of the heads of a decoding step in one launch; the rule is in `operations`.

One program does some heads of one row, either queries, keys or values. A head is held as its two halves, which rotation
mixes.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_MAX_TILE = 8  # heads of a program
_NUM_WARPS = 2


def rotate_and_cache(
    qkv: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    eps: float,
    cos_sin: Tensor,
    positions: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    places: Tensor,
) -> Tensor:
    """As `operations.rotate_and_cache`; all contiguous, D a power of two."""
    n_kv_heads, size = key_cache.shape[1:]
    n_heads = qkv.shape[1] // size - 2 * n_kv_heads
    tile = _tile(n_heads, n_kv_heads)
    out = torch.empty(len(qkv), n_heads * size, dtype=qkv.dtype, device=qkv.device)
    kernel: Any = _rotate_kernel[(len(qkv), (n_heads + 2 * n_kv_heads) // tile)]
    kernel(
        qkv,
        query_weight,
        key_weight,
        cos_sin,
        positions,
        places,
        key_cache,
        value_cache,
        out,
        eps,
        HEADS=n_heads,
        KV_HEADS=n_kv_heads,
        HALF=size // 2,
        TILE=tile,
        num_warps=_NUM_WARPS,
    )
    return out


def _tile(n_heads: int, n_kv_heads: int) -> int:
    """The largest power of two that divides both numbers of heads."""
    tile = _MAX_TILE
    while n_heads % tile or n_kv_heads % tile:
        tile //= 2
    return tile


@triton.jit
def _weighed(normed, query_weight_ptr, key_weight_ptr, is_query, out_ptr):
    """By the weights of the queries' norm or of the keys', rounded as what is handed on."""
    weight = tl.where(is_query, tl.load(query_weight_ptr), tl.load(key_weight_ptr)).to(tl.float32)
    return (normed * weight).to(out_ptr.dtype.element_ty).to(tl.float32)


@triton.jit
def _rotate_kernel(
    qkv_ptr,
    query_weight_ptr,
    key_weight_ptr,
    cos_sin_ptr,
    position_ptr,
    place_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    TILE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * TILE
    head = tl.arange(0, TILE)[:, None]
    half = tl.arange(0, HALF)[None, :]
    at = qkv_ptr + (row * (HEADS + 2 * KV_HEADS) + start + head) * (2 * HALF) + half
    first, second = tl.load(at), tl.load(at + HALF)
    place = tl.load(place_ptr + row).to(tl.int64)
    cached = (place * KV_HEADS + head) * (2 * HALF) + half
    if start >= HEADS + KV_HEADS:
        at_value = value_ptr + cached + (start - HEADS - KV_HEADS) * (2 * HALF)
        tl.store(at_value, first.to(tl.float32).to(value_ptr.dtype.element_ty))
        tl.store(at_value + HALF, second.to(tl.float32).to(value_ptr.dtype.element_ty))
    else:
        is_query = start < HEADS
        a, b = first.to(tl.float32), second.to(tl.float32)
        scale = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / (2 * HALF) + eps)[:, None]
        a = _weighed(a * scale, query_weight_ptr + half, key_weight_ptr + half, is_query, out_ptr)
        b = _weighed(b * scale, query_weight_ptr + HALF + half, key_weight_ptr + HALF + half, is_query, out_ptr)
        at_angle = cos_sin_ptr + tl.load(position_ptr + row).to(tl.int64) * (2 * HALF) + half
        cos, sin = tl.load(at_angle).to(tl.float32), tl.load(at_angle + HALF).to(tl.float32)
        turned_a = (a * cos - b * sin).to(out_ptr.dtype.element_ty)
        turned_b = (b * cos + a * sin).to(out_ptr.dtype.element_ty)
        if is_query:
            at_out = out_ptr + (row * HEADS + start + head) * (2 * HALF) + half
            tl.store(at_out, turned_a)
            tl.store(at_out + HALF, turned_b)
        else:
            at_key = key_ptr + cached + (start - HEADS) * (2 * HALF)
            tl.store(at_key, turned_a.to(tl.float32).to(key_ptr.dtype.element_ty))
            tl.store(at_key + HALF, turned_b.to(tl.float32).to(key_ptr.dtype.element_ty))
