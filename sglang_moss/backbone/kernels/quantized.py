# pyright: reportCallIssue=false, reportArgumentType=false
"""A norm, and a gated product, whose results are quantized by row, in a launch each; the rules are in `operations`.

One program has one row, all of it in registers.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.backbone.operations import FP8, LARGEST, Quantized

_ELEMENTS_OF_A_WARP = 512
_MAX_WARPS = 16
_LARGEST = tl.constexpr(LARGEST)


def norm_quantized(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype = FP8
) -> Quantized:
    """As `operations.norm_quantized`; x and residual are contiguous, and of one dtype but for parts."""
    whole = x if residual is None else residual
    n_rows, size = whole.shape
    out = _output(whole, size, dtype)
    kernel: Any = _norm_kernel[(n_rows,)]
    kernel(
        x,
        whole,
        weight,
        out.rows,
        out.scales,
        eps,
        n_rows * size,
        SIZE=size,
        PARTS=len(x) if x.dim() == 3 else 1,
        ADDS=residual is not None,
        **_block(size),
    )
    return out


def gate_quantized(gate_up: Tensor, dtype: torch.dtype = FP8) -> Quantized:
    """As `operations.gate_quantized`; contiguous."""
    size = gate_up.shape[1] // 2
    out = _output(gate_up, size, dtype)
    kernel: Any = _gate_kernel[(len(gate_up),)]
    kernel(gate_up, out.rows, out.scales, SIZE=size, **_block(size))
    return out


def _output(x: Tensor, size: int, dtype: torch.dtype) -> Quantized:
    rows = torch.empty(len(x), size, dtype=dtype, device=x.device)
    return Quantized(rows, torch.empty(len(x), 1, dtype=torch.float32, device=x.device), x.dtype)


def _block(size: int) -> dict[str, int]:
    block = int(triton.next_power_of_2(size))
    return {"BLOCK": block, "num_warps": min(_MAX_WARPS, max(1, block // _ELEMENTS_OF_A_WARP))}


@triton.jit
def _store_quantized(values, out_ptr, scale_ptr, row, column, SIZE: tl.constexpr):
    """A row of float32, zeros beyond its end."""
    scale = tl.div_rn(tl.max(tl.abs(values), axis=0), _LARGEST)
    inverse = tl.where(scale == 0, 0.0, tl.div_rn(1.0, scale))
    values = tl.minimum(tl.maximum(values * inverse, -_LARGEST), _LARGEST)
    tl.store(out_ptr + row * SIZE + column, values.to(out_ptr.dtype.element_ty), mask=column < SIZE)
    tl.store(scale_ptr + row, scale)


@triton.jit
def _norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    scale_ptr,
    eps,
    part_stride,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < SIZE
    x = tl.load(x_ptr + row * SIZE + column, mask=inside, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):  # pyright: ignore[reportGeneralTypeIssues]
        x += tl.load(x_ptr + part * part_stride + row * SIZE + column, mask=inside, other=0.0)
    if PARTS > 1:
        x = x.to(residual_ptr.dtype.element_ty).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        at = residual_ptr + row * SIZE + column
        x += tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tl.store(at, x.to(residual_ptr.dtype.element_ty), mask=inside)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / SIZE + eps)
    normed = (x * scale * weight).to(residual_ptr.dtype.element_ty).to(tl.float32)
    _store_quantized(normed, out_ptr, scale_ptr, row, column, SIZE)


@triton.jit
def _gate_kernel(x_ptr, out_ptr, scale_ptr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    at = x_ptr + row * 2 * SIZE + column
    gate = tl.load(at, mask=column < SIZE, other=0.0).to(tl.float32)
    up = tl.load(at + SIZE, mask=column < SIZE, other=0.0).to(tl.float32)
    values = (gate * tl.sigmoid(gate) * up).to(x_ptr.dtype.element_ty).to(tl.float32)
    _store_quantized(values, out_ptr, scale_ptr, row, column, SIZE)
