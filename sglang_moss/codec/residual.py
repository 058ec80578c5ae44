"""The residual stream between sub-layers: float32 rows with one update still to be added.

    x + scale * update  ->  the new x, and its layer norm for the next sub-layer

The update waits, so that adding it and the norm that follows can be one kernel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from sglang_moss.codec import kernels
from sglang_moss.codec.ring import RingAccess, RingKV


@dataclass(frozen=True)
class Residual:
    """x + scale * update, not yet added up."""

    x: Tensor  # [B, S, d_model] float32
    update: Tensor | None = None  # [B, S, d_model] in the layers' dtype
    scale: Tensor | None = None  # [d_model] float32; None is 1

    def sum(self) -> Tensor:
        if self.update is None:
            return self.x
        return self.x + (self.update if self.scale is None else self.scale * self.update)


@dataclass(frozen=True)
class RingWrite:
    """Keys and values of a step that have been attended to, and may now go into the ring."""

    ring: RingKV
    access: RingAccess
    qkv: Tensor  # [B, S, 3, H, head_dim] contiguous, keys rotated

    def do(self) -> None:
        _, k, v = self.qkv.unbind(2)
        self.ring.write(self.access, k, v)


def add_and_norm(
    residual: Residual, norm: nn.LayerNorm, dtype: torch.dtype, write: RingWrite | None = None
) -> tuple[Tensor, Tensor]:
    """Add the waiting update and normalise; a `write` is done on the way, which spares it a launch of its own.

    Returns:
        x [B, S, d_model] float32, and its layer norm in `dtype`.
    """
    if kernels.run_on(residual.x):
        from sglang_moss.codec.kernels.residual import add_and_norm as add_and_norm_by_kernel

        return add_and_norm_by_kernel(residual, norm, dtype, write)
    return add_and_norm_reference(residual, norm, dtype, write)


def add_and_norm_reference(
    residual: Residual, norm: nn.LayerNorm, dtype: torch.dtype, write: RingWrite | None = None
) -> tuple[Tensor, Tensor]:
    """`add_and_norm` in plain torch."""
    if write is not None:
        write.do()
    x = residual.sum()
    return x, layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)
