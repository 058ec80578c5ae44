"""What lies between the products of a layer, and a product in parts, in plain torch: what the kernels are held to.

Each function does what one or several of SGLang's kernels do one after the other, rounding where these hand a result
on: a norm or a gated product is rounded to the dtype of its input before it is quantized, and a normed head before it
is rotated. Sums are float32. What is too large for a cache in 8 bits is what torch makes of it, and 448 from kernels.

Sources, of SGLang 0.5.23: `RMSNorm`, `RotaryEmbedding`, `SiluAndMul`, `MHATokenToKVPool.set_kv_buffer` and the
quantization of activations by row, `sglang_per_token_quant_fp8`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sglang_moss.backbone.cut import Cut

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of FP8


class Quantized(NamedTuple):
    """Rows in 8 bits, as SGLang's products by fp8 weights take them in the place of a tensor."""

    rows: Tensor  # [B, K] FP8
    scales: Tensor  # [B, 1] float32: by what each row is multiplied
    dtype: torch.dtype  # of the product


def quantize(x: Tensor, dtype: torch.dtype = FP8) -> Quantized:
    """[B, K] rows, each divided by a 448th of its largest magnitude."""
    values = x.float()
    scales = values.abs().amax(dim=1, keepdim=True) / LARGEST
    inverse = torch.where(scales == 0, 0.0, 1 / scales)
    return Quantized((values * inverse).clamp(-LARGEST, LARGEST).to(dtype), scales, x.dtype)


def multiply(rows: Quantized, weight: Tensor, weight_scales: Tensor, cut: Cut) -> Tensor:
    """The product of quantized rows by fp8 weights, in parts that are still to be added up.

    Args:
        rows: [B, K].
        weight: [K, N] FP8.
        weight_scales: N of them, float32, in whatever shape: by what each column is multiplied.
        cut: how many parts there are.
    Returns:
        [parts, B, N] float32; [B, N] in the dtype of the product if there is one part.
    """
    parts = [
        x.float() @ w.float() * rows.scales * weight_scales.view(1, -1)
        for x, w in zip(rows.rows.chunk(cut.parts, dim=1), weight.chunk(cut.parts, dim=0), strict=True)
    ]
    return torch.stack(parts) if cut.parts > 1 else parts[0].to(rows.dtype)


def added_up(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, N] of what `multiply` gives, rounded once; what has no parts is left as it is."""
    return x.sum(dim=0).to(dtype) if x.dim() == 3 else x


def norm_quantized(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype = FP8
) -> Quantized:
    """The root mean square norm of x + residual, quantized; the sum takes the place of the residual.

    Args:
        x: [B, D]; or, where there is a residual, [parts, B, D] float32, which `added_up` makes that of.
        residual: [B, D], changed in place; None: there is none yet.
        weight: [D].
        eps: of the norm.
    """
    x = x if residual is None else added_up(x, residual.dtype)
    total = x.float()
    if residual is not None:
        total = total + residual.float()
        residual.copy_(total)
    return quantize(_normed(total, weight, eps, x.dtype), dtype)


def gate_quantized(gate_up: Tensor, dtype: torch.dtype = FP8) -> Quantized:
    """silu(gate) * up of [B, 2 * K], gates first, quantized."""
    gate, up = gate_up.float().chunk(2, dim=1)
    return quantize((functional.silu(gate) * up).to(gate_up.dtype), dtype)


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
    """Queries and keys normed by head and rotated by position, keys and values put into the cache.

    Args:
        qkv: [B, (HQ + 2 * HK) * D], queries, keys, values.
        query_weight: [D], of the queries' norm.
        key_weight: [D].
        eps: of both norms.
        cos_sin: [positions, D], D / 2 cosines and as many sines.
        positions: [B] integers.
        key_cache: [N, HK, D], in any floating dtype.
        value_cache: likewise.
        places: [B] integers below N, where keys and values go.
    Returns:
        [B, HQ * D] queries, in the dtype of `qkv`.
    """
    n_kv_heads, size = key_cache.shape[1:]
    heads = qkv.unflatten(1, (-1, size))
    queries, keys, values = heads.split([heads.shape[1] - 2 * n_kv_heads, n_kv_heads, n_kv_heads], dim=1)
    cos, sin = cos_sin[positions].float()[:, None].chunk(2, dim=-1)

    def rotated(x: Tensor, weight: Tensor) -> Tensor:
        first, second = _normed(x.float(), weight, eps, x.dtype).float().chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)

    key_cache[places] = rotated(keys, key_weight).to(key_cache.dtype)
    value_cache[places] = values.to(value_cache.dtype)
    return rotated(queries, query_weight).flatten(1)


def _normed(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """[..., D] float32 normed over the last axis, rounded once."""
    return (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight.float()).to(dtype)
