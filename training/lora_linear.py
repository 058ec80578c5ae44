"""A linear layer with its adapter, as one operation: what checkpointing keeps of it is its result alone.

    y = x W' + s (x A') B'
    dx = dy W + s (dy B) A,  dA = s (dy B)' x,  dB = s dy' (x A')

The small product comes first and the large one is added to it as it is written, which the other order would read and
write once more. W is frozen. The plain rule is peft's own forward, to which tests compare it.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("sglang_moss::lora_linear", mutates_args=())
def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """See above.

    Args:
        x: [N, K].
        weight: [O, K].
        bias: [O], frozen too.
        a: [R, K].
        b: [O, R].
        scaling: s.
    Returns:
        y [N, O], and x A' [N, R], which only the gradient of `b` needs.
    """
    narrow = x @ a.T
    out = torch.mm(scaling * narrow, b.T)
    out.addmm_(x, weight.T)
    if bias is not None:
        out += bias
    return out, narrow


@lora_linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    a: Tensor,
    b: Tensor,  # noqa: ARG001
    scaling: float,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], a.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _bias, a, b, ctx.scaling = inputs
    ctx.save_for_backward(x, weight, a, b, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, d_out: Tensor | None, _d_narrow: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, a, b, narrow = ctx.saved_tensors
    if d_out is None:
        return None, None, None, None, None, None
    d_narrow = ctx.scaling * (d_out @ b)
    d_x = None
    if ctx.needs_input_grad[0]:
        d_x = d_narrow @ a
        d_x.addmm_(d_out, weight)
    return d_x, None, None, d_narrow.T @ x, d_out.T @ (ctx.scaling * narrow), None


lora_linear.register_autograd(_backward, setup_context=_setup)

OPERATION = torch.ops.sglang_moss.lora_linear.default
