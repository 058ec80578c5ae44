"""Transformer stage: pre-norm layers of windowed attention and feed-forward, between two optional projections.

One `forward` serves one-shot and streaming: without rings the rows start at position 0, with them they follow what
each slot has seen.

Source: MOSS-Audio-Tokenizer `ProjectedTransformer` and `TransformerLayer`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from sglang_moss.codec.attention import QueryBlock, attend, plan_blocks
from sglang_moss.codec.config import TransformerShape
from sglang_moss.codec.ring import RingAccess, RingKV, SlotBatch, plan_access
from sglang_moss.codec.rotary import rotate, rotation


@dataclass(frozen=True)
class RowPlan:
    """What the layers of a stage share in one call."""

    cos: Tensor
    sin: Tensor
    blocks: list[QueryBlock]
    access: RingAccess | None  # None: one-shot, there is no history


class TransformerLayer(nn.Module):
    """x + scale * attention(norm(x)), then x + scale * feed_forward(norm(x)), on [B, S, d_model]."""

    def __init__(self, shape: TransformerShape):
        super().__init__()
        d_model = shape.d_model
        self.head_dim = shape.head_dim
        self.attention_norm = nn.LayerNorm(d_model, eps=1e-5, dtype=torch.float32)
        self.qkv = _linear(d_model, 3 * d_model)
        self.attention_out = _linear(d_model, d_model)
        self.attention_scale = _scale(shape)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps=1e-5, dtype=torch.float32)
        self.up = _linear(d_model, shape.feed_forward_dim)
        self.down = _linear(shape.feed_forward_dim, d_model)
        self.feed_forward_scale = _scale(shape)

    def forward(self, x: Tensor, plan: RowPlan, ring: RingKV | None) -> Tensor:
        x = x + self._scaled(self._attention(self.attention_norm(x), plan, ring), self.attention_scale)
        update = self.down(gelu(self.up(self.feed_forward_norm(x))))
        return x + self._scaled(update, self.feed_forward_scale)

    def _attention(self, x: Tensor, plan: RowPlan, ring: RingKV | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head_dim)).unbind(2)  # each [B, S, H, head_dim]
        q, k = rotate(q, plan.cos, plan.sin), rotate(k, plan.cos, plan.sin)
        if ring is None or plan.access is None:
            mixed = attend(q, k, v, plan.blocks)
        else:
            old_k, old_v = ring.history(plan.access)
            mixed = attend(q, torch.cat((old_k, k), dim=1), torch.cat((old_v, v), dim=1), plan.blocks)
            ring.write(plan.access, k, v)
        return self.attention_out(mixed.flatten(-2))

    @staticmethod
    def _scaled(update: Tensor, scale: Tensor | None) -> Tensor:
        return update if scale is None else scale * update


class TransformerStage(nn.Module):
    """[B, S, input_dim] -> [B, S, output_dim] at one row rate."""

    def __init__(self, shape: TransformerShape):
        super().__init__()
        self.shape = shape
        self.input_proj = _projection(shape.input_dim, shape.d_model)
        self.layers = nn.ModuleList(TransformerLayer(shape) for _ in range(shape.n_layers))
        self.output_proj = _projection(shape.d_model, shape.output_dim)

    def forward(self, x: Tensor, batch: SlotBatch | None = None, rings: list[RingKV] | None = None) -> Tensor:
        """Run the stage; with `batch` and `rings` (one a layer), after each slot's history and into its rings."""
        x = self.input_proj(x)
        plan = self._plan(x, batch)
        for layer, ring in zip(self.layers, rings or [None] * len(self.layers), strict=True):
            x = layer(x, plan, ring)
        return self.output_proj(x)

    def _plan(self, x: Tensor, batch: SlotBatch | None) -> RowPlan:
        n_rows, shape = x.shape[1], self.shape
        if batch is None:
            access = None
            positions = torch.arange(n_rows, device=x.device)[None]
            blocks = plan_blocks(n_rows, shape.window, device=x.device, dtype=x.dtype)
        else:
            access = plan_access(batch, n_rows // shape.rows_per_frame, shape.rows_per_frame, shape.window)
            positions = access.positions
            blocks = plan_blocks(
                n_rows,
                shape.window,
                device=x.device,
                dtype=x.dtype,
                n_history=shape.window - 1,
                n_missing=access.n_missing,
            )
        cos, sin = rotation(positions, shape.head_dim, shape.max_period)
        return RowPlan(cos, sin, blocks, access)


def _linear(n_in: int, n_out: int) -> nn.Linear:
    return nn.Linear(n_in, n_out, bias=False, dtype=torch.float32)


def _projection(n_in: int, n_out: int) -> nn.Module:
    """The checkpoint has a projection only between different widths."""
    return nn.Identity() if n_in == n_out else _linear(n_in, n_out)


def _scale(shape: TransformerShape) -> nn.Parameter | None:
    if shape.layer_scale is None:
        return None
    return nn.Parameter(torch.full((shape.d_model,), shape.layer_scale, dtype=torch.float32))
