# pyright: reportCallIssue=false
"""Residual update, layer norm and ring write in one launch; the rule is `codec.residual.add_and_norm_reference`.

    sum    = x + scale * update                                 float32
    normed = (sum - mean) / sqrt(variance + eps) * weight + bias     float32, rounded once

Keys and values are copied as they are.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from sglang_moss.codec.residual import Residual, RingWrite


@triton.jit
def _add_and_norm_kernel(
    x_ptr,
    update_ptr,
    scale_ptr,
    weight_ptr,
    bias_ptr,
    sum_ptr,
    normed_ptr,
    qkv_ptr,
    ring_k_ptr,
    ring_v_ptr,
    slot_ptr,
    column_ptr,
    slot_stride,
    D,
    eps,
    HAS_UPDATE: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_WRITE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program does one row."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    inside = d < D
    x = tl.load(x_ptr + row * D + d, mask=inside, other=0.0)
    if HAS_UPDATE:
        update = tl.load(update_ptr + row * D + d, mask=inside, other=0.0).to(tl.float32)
        if HAS_SCALE:
            update *= tl.load(scale_ptr + d, mask=inside, other=0.0)
        x += update
        tl.store(sum_ptr + row * D + d, x, mask=inside)
    centred = tl.where(inside, x - tl.sum(x, axis=0) / D, 0.0)
    normed = centred / tl.sqrt(tl.sum(centred * centred, axis=0) / D + eps)
    weight = tl.load(weight_ptr + d, mask=inside, other=0.0)
    bias = tl.load(bias_ptr + d, mask=inside, other=0.0)
    tl.store(normed_ptr + row * D + d, normed * weight + bias, mask=inside)
    if HAS_WRITE:
        key = qkv_ptr + row * 3 * D + D + d
        place = tl.load(slot_ptr + row) * slot_stride + tl.load(column_ptr + row) * D + d
        tl.store(ring_k_ptr + place, tl.load(key, mask=inside), mask=inside)
        tl.store(ring_v_ptr + place, tl.load(key + D, mask=inside), mask=inside)


def add_and_norm(
    residual: Residual, norm: nn.LayerNorm, dtype: torch.dtype, write: RingWrite | None = None
) -> tuple[Tensor, Tensor]:
    """As `codec.residual.add_and_norm`."""
    x, update = residual.x.contiguous(), residual.update
    d_model = x.shape[-1]
    assert x.dtype == torch.float32
    assert update is None or update.is_contiguous()
    total = x if update is None else torch.empty_like(x)
    normed = torch.empty_like(x, dtype=dtype)
    if write is None:
        written: tuple = (x, x, x, x, x, 0)
    else:
        ring, access = write.ring, write.access
        assert write.qkv.is_contiguous()
        assert ring.k.stride() == ring.v.stride()
        assert ring.k[0].is_contiguous()
        written = (write.qkv, ring.k, ring.v, access.write_slots, access.write_columns, ring.k.stride(0))
    block = triton.next_power_of_2(d_model)
    _add_and_norm_kernel[(x.numel() // d_model,)](
        x,
        x if update is None else update,
        x if residual.scale is None else residual.scale,
        norm.weight,
        norm.bias,
        total,
        normed,
        *written,
        d_model,
        norm.eps,
        HAS_UPDATE=update is not None,
        HAS_SCALE=residual.scale is not None,
        HAS_WRITE=write is not None,
        BLOCK_D=block,
        num_warps=8 if block > 1024 else 4,
    )
    return total, normed
