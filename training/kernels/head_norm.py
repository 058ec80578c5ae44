# pyright: reportCallIssue=false, reportArgumentType=false
"""Norm and rotation of queries or keys in one launch, and their gradient in another.

The rule is `small_operations.norm_and_rotate`. One program does all heads of one row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def head_norm_kernel(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Normed and rotated heads.

    Args:
        x: [N, H, D], contiguous; D is a power of two.
        weight: [D].
        cos: [N, D], whose halves are alike.
        sin: [N, D], likewise.
        eps: of the norm.
    """
    out = torch.empty_like(x)
    n_rows, n_heads, size = x.shape
    if n_rows:
        _forward_kernel[(n_rows,)](
            x, weight, cos, sin, out, eps, n_heads, HALF=size // 2, HEADS=triton.next_power_of_2(n_heads)
        )
    return out


def head_norm_gradient_kernel(
    d_out: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float, *, wants_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `x`, and of `weight` if it is wanted: float32 [D]."""
    d_x = torch.empty_like(x)
    n_rows, n_heads, size = x.shape
    parts = torch.empty(n_rows, size, dtype=torch.float32, device=x.device) if wants_weight else None
    if n_rows:
        _backward_kernel[(n_rows,)](
            d_out.contiguous(),
            x,
            weight,
            cos,
            sin,
            d_x,
            d_x if parts is None else parts,
            eps,
            n_heads,
            HALF=size // 2,
            HEADS=triton.next_power_of_2(n_heads),
            WEIGHT=wants_weight,
        )
    return d_x, None if parts is None else parts.sum(0)


@triton.jit
def _forward_kernel(
    x_ptr, weight_ptr, cos_ptr, sin_ptr, out_ptr, eps, n_heads, HALF: tl.constexpr, HEADS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    head, d = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)
    first = row * n_heads * 2 * HALF + head * 2 * HALF + d[None]
    inside = (head < n_heads) & (d[None] < HALF)
    x1 = tl.load(x_ptr + first, mask=inside, other=0.0).to(tl.float32)
    x2 = tl.load(x_ptr + first + HALF, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * HALF) + eps)[:, None]
    n1 = x1 * scale * tl.load(weight_ptr + d).to(tl.float32)[None]
    n2 = x2 * scale * tl.load(weight_ptr + HALF + d).to(tl.float32)[None]
    cos = tl.load(cos_ptr + row * 2 * HALF + d).to(tl.float32)[None]
    sin = tl.load(sin_ptr + row * 2 * HALF + d).to(tl.float32)[None]
    tl.store(out_ptr + first, n1 * cos - n2 * sin, mask=inside)
    tl.store(out_ptr + first + HALF, n2 * cos + n1 * sin, mask=inside)


@triton.jit
def _backward_kernel(
    d_out_ptr,
    x_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    d_x_ptr,
    parts_ptr,
    eps,
    n_heads,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    WEIGHT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head, d = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)
    first = row * n_heads * 2 * HALF + head * 2 * HALF + d[None]
    inside = (head < n_heads) & (d[None] < HALF)
    d1 = tl.load(d_out_ptr + first, mask=inside, other=0.0).to(tl.float32)
    d2 = tl.load(d_out_ptr + first + HALF, mask=inside, other=0.0).to(tl.float32)
    cos = tl.load(cos_ptr + row * 2 * HALF + d).to(tl.float32)[None]
    sin = tl.load(sin_ptr + row * 2 * HALF + d).to(tl.float32)[None]
    d_n1, d_n2 = d1 * cos + d2 * sin, d2 * cos - d1 * sin
    x1 = tl.load(x_ptr + first, mask=inside, other=0.0).to(tl.float32)
    x2 = tl.load(x_ptr + first + HALF, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * HALF) + eps)[:, None]
    x1, x2 = x1 * scale, x2 * scale
    if WEIGHT:
        tl.store(parts_ptr + row * 2 * HALF + d, tl.sum(d_n1 * x1, 0))
        tl.store(parts_ptr + row * 2 * HALF + HALF + d, tl.sum(d_n2 * x2, 0))
    g1 = d_n1 * tl.load(weight_ptr + d).to(tl.float32)[None]
    g2 = d_n2 * tl.load(weight_ptr + HALF + d).to(tl.float32)[None]
    mean = ((tl.sum(g1 * x1, 1) + tl.sum(g2 * x2, 1)) / (2 * HALF))[:, None]
    tl.store(d_x_ptr + first, scale * (g1 - x1 * mean), mask=inside)
    tl.store(d_x_ptr + first + HALF, scale * (g2 - x2 * mean), mask=inside)
