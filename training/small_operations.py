"""What lies between the backbone's products, each in one pass over memory: norms, rotation, the gated product.

transformers does the same in some thirty launches a layer, each of which reads and writes everything; at 16,384 rows
that takes as long as half of the products. On a GPU kernels do it (`kernels`), elsewhere and under torch.compile plain
torch. Sums are float32, and what comes out is rounded once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3MLP, Qwen3RMSNorm

from .attention import Segments, attend


def replace_small_operations(backbone: nn.Module) -> None:
    """Let a backbone of transformers compute so, in place; its parameters stay where they are."""
    for module in backbone.modules():
        own = _REPLACED.get(type(module))
        if own is not None:
            module.__class__ = own


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, both [..., D]."""
    if _uses_kernels(gate):
        return _SwiGLU.apply(gate, up)  # pyright: ignore[reportReturnType]
    return functional.silu(gate) * up


def norm_and_rotate(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Root mean square norm of each head, then rotation by position.

    Args:
        x: [1, N, H, D].
        weight: [D].
        cos: [1, N, D], whose halves are alike.
        sin: [1, N, D], likewise.
        eps: of the norm.
    Returns:
        [1, N, H, D].
    """
    size = x.shape[-1]
    if _uses_kernels(x) and size & (size - 1) == 0:
        return _HeadNorm.apply(x[0], weight, cos[0], sin[0], eps)[None]  # pyright: ignore[reportOptionalSubscript]
    normed = functional.rms_norm(x, (size,), weight, eps)
    first, second = normed.chunk(2, -1)
    return normed * cos[:, :, None] + torch.cat((-second, first), -1) * sin[:, :, None]


def _uses_kernels(x: Tensor) -> bool:
    return x.device.type == "cuda" and not torch.compiler.is_compiling()


class _Norm(Qwen3RMSNorm):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


class _MLP(Qwen3MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class _Attention(Qwen3Attention):
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        segments: Segments,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key = (
            norm_and_rotate(
                project(hidden_states).view(heads), norm.weight, *position_embeddings, norm.variance_epsilon
            ).transpose(1, 2)
            for project, norm in ((self.q_proj, self.q_norm), (self.k_proj, self.k_norm))
        )
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        return self.o_proj(attend(query, key, value, segments, self.scaling).flatten(2)), None


_REPLACED: dict[type[nn.Module], type[nn.Module]] = {
    Qwen3RMSNorm: _Norm,
    Qwen3MLP: _MLP,
    Qwen3Attention: _Attention,
}


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        from .kernels.swiglu import swiglu_kernel

        ctx.save_for_backward(gate, up)
        return swiglu_kernel(gate, up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        from .kernels.swiglu import swiglu_gradient_kernel

        return swiglu_gradient_kernel(grads[0], *ctx.saved_tensors)


class _HeadNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        from .kernels.head_norm import head_norm_kernel

        x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(x, weight, cos, sin)
        ctx.eps = eps
        return head_norm_kernel(x, weight, cos, sin, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from .kernels.head_norm import head_norm_gradient_kernel

        x, weight, cos, sin = ctx.saved_tensors
        d_x, d_weight = head_norm_gradient_kernel(
            grads[0], x, weight, cos, sin, ctx.eps, wants_weight=ctx.needs_input_grad[1]
        )
        return d_x, None if d_weight is None else d_weight.to(weight.dtype), None, None, None
