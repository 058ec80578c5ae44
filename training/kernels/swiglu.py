# pyright: reportCallIssue=false, reportArgumentType=false
"""The gated product of an MLP in one launch, and its gradient in another; the rule is `small_operations.swiglu`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048


def swiglu_kernel(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of one shape and contiguous."""
    assert gate.shape == up.shape, f"{gate.shape} and {up.shape}"
    out = torch.empty_like(gate)
    _forward_kernel[(triton.cdiv(out.numel(), _BLOCK),)](
        gate.contiguous(), up.contiguous(), out, out.numel(), BLOCK=_BLOCK
    )
    return out


def swiglu_gradient_kernel(d_out: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `gate` and `up`."""
    d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
    _backward_kernel[(triton.cdiv(gate.numel(), _BLOCK),)](
        d_out.contiguous(), gate.contiguous(), up.contiguous(), d_gate, d_up, gate.numel(), BLOCK=_BLOCK
    )
    return d_gate, d_up


@triton.jit
def _forward_kernel(gate_ptr, up_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, gate / (1 + tl.exp(-gate)) * up, mask=inside)


@triton.jit
def _backward_kernel(d_out_ptr, gate_ptr, up_ptr, d_gate_ptr, d_up_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    d_out = tl.load(d_out_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    share = 1 / (1 + tl.exp(-gate))
    tl.store(d_gate_ptr + at, d_out * up * share * (1 + gate * (1 - share)), mask=inside)
    tl.store(d_up_ptr + at, d_out * gate * share, mask=inside)
