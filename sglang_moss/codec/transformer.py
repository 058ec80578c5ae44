"""Transformer stage: pre-norm layers of windowed attention and feed-forward, between two optional projections.

One `forward` serves one-shot and streaming: without rings the rows start at position 0, with them they follow what
each slot has seen.

Source: MOSS-Audio-Tokenizer `ProjectedTransformer` and `TransformerLayer`.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from sglang_moss.codec import kernels
from sglang_moss.codec.attention import QueryBlock, attend, plan_blocks
from sglang_moss.codec.config import TransformerShape
from sglang_moss.codec.fp16x3 import Fp16x3Linear
from sglang_moss.codec.residual import Residual, RingWrite, add_and_norm
from sglang_moss.codec.ring import RingAccess, RingKV, SlotBatch, plan_access
from sglang_moss.codec.rotary import rotate_queries_and_keys, rotation


@dataclass(frozen=True)
class RowPlan:
    """What the layers of a stage share in one call."""

    cos: Tensor
    sin: Tensor
    access: RingAccess | None  # None: one-shot, there is no history
    blocks: list[QueryBlock]  # empty where a kernel attends without them


class TransformerLayer(nn.Module):
    """x + scale * attention(norm(x)), then x + scale * feed_forward(norm(x)), on [B, S, d_model].

    The residual stream, norms, angles and softmax are float32. The operands of matrix products have the dtype of the
    layer's linear weights, `dtype`; sums inside the products are float32.
    """

    def __init__(self, shape: TransformerShape):
        super().__init__()
        d_model = shape.d_model
        self.head_dim = shape.head_dim
        self.attention_norm = nn.LayerNorm(d_model, eps=1e-5, dtype=torch.float32)
        self.qkv: nn.Linear | Fp16x3Linear = _linear(d_model, 3 * d_model)
        self.attention_out: nn.Linear | Fp16x3Linear = _linear(d_model, d_model)
        self.attention_scale = _scale(shape)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps=1e-5, dtype=torch.float32)
        self.up: nn.Linear | Fp16x3Linear = _linear(d_model, shape.feed_forward_dim)
        self.down: nn.Linear | Fp16x3Linear = _linear(shape.feed_forward_dim, d_model)
        self.feed_forward_scale = _scale(shape)
        self.attention_precision = "ieee"  # of float32 products, as Triton's `dot` has it

    @property
    def linears(self) -> dict[str, nn.Linear | Fp16x3Linear]:
        """The linear layers by name: nearly all of the weights and of the arithmetic."""
        return {"qkv": self.qkv, "attention_out": self.attention_out, "up": self.up, "down": self.down}

    def to_fp16x3(self) -> None:
        """Have float32 products on tensor cores, as three of halves each; the weights stay where they are."""
        for name, linear in self.linears.items():
            setattr(self, name, Fp16x3Linear(cast(nn.Parameter, linear.weight)))
        self.attention_precision = "tf32x3"

    @property
    def dtype(self) -> torch.dtype:
        return self.qkv.weight.dtype

    def forward(self, residual: Residual, plan: RowPlan, ring: RingKV | None) -> Residual:
        x, normed = add_and_norm(residual, self.attention_norm, self.dtype)
        qkv = self.qkv(normed).unflatten(-1, (3, -1, self.head_dim))
        rotate_queries_and_keys(qkv, plan.cos, plan.sin)
        mixed, write = _attend(qkv, plan, ring, self.attention_precision)
        residual = Residual(x, self.attention_out(mixed.flatten(-2)), self.attention_scale)
        x, normed = add_and_norm(residual, self.feed_forward_norm, self.dtype, write)
        return Residual(x, self.down(gelu(self.up(normed))), self.feed_forward_scale)


class TransformerStage(nn.Module):
    """[B, S, input_dim] -> [B, S, output_dim] float32 at one row rate."""

    def __init__(self, shape: TransformerShape):
        super().__init__()
        self.shape = shape
        self.input_proj = _projection(shape.input_dim, shape.d_model)
        self.layers = nn.ModuleList(TransformerLayer(shape) for _ in range(shape.n_layers))
        self.output_proj = _projection(shape.d_model, shape.output_dim)

    @property
    def transformer_layers(self) -> list[TransformerLayer]:
        return [layer for layer in self.layers if isinstance(layer, TransformerLayer)]

    def forward(self, x: Tensor, batch: SlotBatch | None = None, rings: list[RingKV] | None = None) -> Tensor:
        """Run the stage; with `batch` and `rings` (one a layer), after each slot's history and into its rings."""
        residual = Residual(self.input_proj(x))
        plan = self._plan(residual.x, batch)
        for layer, ring in zip(self.layers, rings or [None] * len(self.layers), strict=True):
            residual = layer(residual, plan, ring)
        return self.output_proj(residual.sum())

    def _plan(self, x: Tensor, batch: SlotBatch | None) -> RowPlan:
        n_rows, shape = x.shape[1], self.shape
        dtype = self.transformer_layers[0].dtype
        blocks: list[QueryBlock] = []
        if batch is None:
            access = None
            positions = torch.arange(n_rows, device=x.device)[None]
            blocks = plan_blocks(n_rows, shape.window, device=x.device, dtype=dtype)
        else:
            access = plan_access(batch, n_rows // shape.rows_per_frame, shape.rows_per_frame, shape.window)
            positions = access.positions
            if not kernels.run_on(x):
                n_history = shape.window - 1
                blocks = plan_blocks(
                    n_rows,
                    shape.window,
                    device=x.device,
                    dtype=dtype,
                    n_history=n_history,
                    n_missing=(n_history - access.n_seen).clamp(min=0),
                )
        cos, sin = rotation(positions, shape.head_dim, shape.max_period)
        return RowPlan(cos, sin, access, blocks)


def _attend(qkv: Tensor, plan: RowPlan, ring: RingKV | None, precision: str) -> tuple[Tensor, RingWrite | None]:
    """Attention [B, S, H, head_dim] of the rows qkv [B, S, 3, H, head_dim], and the write into the ring that is due."""
    q, k, v = qkv.unbind(2)
    if ring is None or plan.access is None:
        return attend(q, k, v, plan.blocks), None
    write = RingWrite(ring, plan.access, qkv)
    if kernels.run_on(qkv):
        from sglang_moss.codec.kernels.attention import attend_in_ring

        return attend_in_ring(qkv, ring, plan.access, precision), write
    old_k, old_v = ring.history(plan.access)
    k, v = torch.cat((old_k.to(k.dtype), k), dim=1), torch.cat((old_v.to(v.dtype), v), dim=1)
    return attend(q, k, v, plan.blocks), write


def _linear(n_in: int, n_out: int) -> nn.Linear:
    return nn.Linear(n_in, n_out, bias=False, dtype=torch.float32)


def _projection(n_in: int, n_out: int) -> nn.Module:
    """The checkpoint has a projection only between different widths."""
    return nn.Identity() if n_in == n_out else _linear(n_in, n_out)


def _scale(shape: TransformerShape) -> nn.Parameter | None:
    if shape.layer_scale is None:
        return None
    return nn.Parameter(torch.full((shape.d_model,), shape.layer_scale, dtype=torch.float32))
