"""Kernels of what lies between the products against plain torch."""

import pytest
import torch
from triton_interpreter import DEVICE, INTERPRETED, in_interpreter_without_gpu

from sglang_moss.training.kernels.head_norm import head_norm_gradient_kernel, head_norm_kernel
from sglang_moss.training.kernels.swiglu import swiglu_gradient_kernel, swiglu_kernel
from sglang_moss.training.small_operations import norm_and_rotate, swiglu

pytestmark = pytest.mark.wide

DTYPES = [torch.float32, *([] if INTERPRETED else [torch.bfloat16])]
EPS = 1e-6


def assert_near(found, expected, dtype) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float().cpu(), expected.float(), rtol=tolerance, atol=tolerance)


def drawn(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (2, 2048), (1, 5000)], ids=str)
def test_the_gated_product(shape, dtype):
    gate, up, d_out = (drawn(*shape, seed=i, dtype=dtype) for i in range(3))
    inputs = [tensor.clone().requires_grad_() for tensor in (gate, up)]
    expected = swiglu(*inputs)
    expected.backward(d_out)
    on_device = [tensor.to(DEVICE) for tensor in (gate, up)]
    assert_near(swiglu_kernel(*on_device), expected.detach(), dtype)
    for found, one in zip(swiglu_gradient_kernel(d_out.to(DEVICE), *on_device), inputs, strict=True):
        assert_near(found, one.grad, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_rows", "n_heads", "size"), [(4, 4, 16), (3, 3, 128), (1, 1, 8)])
def test_norm_and_rotation_of_heads(n_rows, n_heads, size, dtype):
    x, d_out = (drawn(n_rows, n_heads, size, seed=i, dtype=dtype) for i in range(2))
    weight = 1 + drawn(size, seed=2, dtype=dtype)
    angles = torch.arange(n_rows)[:, None] * drawn(size // 2, seed=3, dtype=torch.float32)
    cos, sin = (torch.cat([values, values], -1).to(dtype) for values in (angles.cos(), angles.sin()))
    inputs = [tensor.clone().requires_grad_() for tensor in (x, weight)]
    expected = norm_and_rotate(inputs[0][None], inputs[1], cos[None], sin[None], EPS)[0]
    expected.backward(d_out)
    x, weight, cos, sin, d_out = (tensor.to(DEVICE) for tensor in (x, weight, cos, sin, d_out))
    assert_near(head_norm_kernel(x, weight, cos, sin, EPS), expected.detach(), dtype)
    d_x, d_weight = head_norm_gradient_kernel(d_out, x, weight, cos, sin, EPS, wants_weight=True)
    assert_near(d_x, inputs[0].grad, dtype)
    assert d_weight is not None
    assert_near(d_weight, inputs[1].grad, dtype)
    alone, nothing = head_norm_gradient_kernel(d_out, x, weight, cos, sin, EPS, wants_weight=False)
    assert torch.equal(alone, d_x)
    assert nothing is None


in_interpreter_without_gpu(globals())
