"""The kernels between a layer's products against the plain torch beside them."""

import pytest
import torch
from torch import Tensor
from triton_interpreter import DEVICE, INTERPRETED, in_interpreter_without_gpu

from sglang_moss.backbone import operations
from sglang_moss.backbone.cut import Cut
from sglang_moss.backbone.kernels import product, quantized, rotation
from sglang_moss.backbone.operations import FP8

# The interpreter cuts what it makes bfloat16 or FP8 of, where a GPU rounds.
DTYPES = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]
IN_8_BITS = torch.float32 if INTERPRETED else FP8
EPS = 1e-6
SIZES = [96, 256, 4096]


def values(*shape: int, dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to(DEVICE, dtype)


def assert_alike(found: operations.Quantized, expected: operations.Quantized) -> None:
    """Equal but for a rounding to the dtype of the rows, which may fall the other way, and then one to 8 bits."""
    assert found.dtype == expected.dtype
    assert found.rows.dtype == expected.rows.dtype
    step = torch.finfo(found.dtype).eps
    torch.testing.assert_close(found.scales, expected.scales, rtol=2 * step, atol=0)
    coarse = 2 * step if found.rows.dtype == torch.float32 else 0.125
    torch.testing.assert_close(found.rows.float(), expected.rows.float(), rtol=coarse, atol=4 * step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("adds", [False, True])
def test_a_norm_and_its_quantization_are_those_of_plain_torch(dtype, size, adds):
    x, weight = values(5, size, dtype=dtype), values(size, dtype=dtype, seed=1)
    x[2] = 0
    residual = values(5, size, dtype=dtype, seed=2, scale=3.0) if adds else None
    sums = [None if residual is None else residual.clone() for _ in range(2)]
    found, expected = (
        rule.norm_quantized(x, total, weight, EPS, IN_8_BITS)
        for rule, total in zip((quantized, operations), sums, strict=True)
    )
    assert_alike(found, expected)
    if adds:
        torch.testing.assert_close(*sums, rtol=0, atol=0)
        assert not torch.equal(sums[0], residual)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_gated_product_and_its_quantization_are_those_of_plain_torch(dtype, size):
    gate_up = values(4, 2 * size, dtype=dtype, scale=3.0)
    gate_up[1] = 0
    found, expected = (rule.gate_quantized(gate_up, IN_8_BITS) for rule in (quantized, operations))
    assert_alike(found, expected)
    assert (expected.scales[1], expected.rows[1].float().abs().max()) == (0, 0)


@pytest.mark.parametrize("n_rows", [1, 5, 16, 33])
@pytest.mark.parametrize("cut", [Cut(64, 32, 1), Cut(32, 64, 2), Cut(32, 32, 4)], ids=str)
@pytest.mark.parametrize("scales_shape", [(128, 1), (1, 128)])
def test_a_product_in_parts_is_that_of_plain_torch(n_rows, cut, scales_shape):
    rows, columns = (operations.quantize(values(n, 256, dtype=torch.float16, seed=n)) for n in (n_rows, 128))
    scales = columns.scales.view(scales_shape)  # SGLang has both
    found, expected = (rule.multiply(rows, columns.rows.t(), scales, cut) for rule in (product, operations))
    assert found.shape == expected.shape == ((cut.parts, n_rows, 128) if cut.parts > 1 else (n_rows, 128))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2 if cut.parts == 1 else 1e-3)
    whole = columns.rows.float() * columns.scales @ (rows.rows.float() * rows.scales).t()
    torch.testing.assert_close(operations.added_up(found, torch.float32).float(), whole.t(), rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_parts", [2, 4])
def test_a_norm_adds_up_what_is_in_parts(dtype, n_parts):
    parts, weight = values(n_parts, 5, 96, dtype=torch.float32), values(96, dtype=dtype, seed=1)
    residuals = [values(5, 96, dtype=dtype, seed=2) for _ in range(3)]
    found = quantized.norm_quantized(parts, residuals[0], weight, EPS, IN_8_BITS)
    whole = operations.added_up(parts, dtype)
    assert_alike(found, operations.norm_quantized(parts, residuals[1], weight, EPS, IN_8_BITS))
    assert_alike(found, quantized.norm_quantized(whole, residuals[2], weight, EPS, IN_8_BITS))
    step = torch.finfo(dtype).eps
    for others in residuals[1:]:
        torch.testing.assert_close(residuals[0], others, rtol=step, atol=step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cached", [None, FP8], ids=str)  # None: as what is rotated
@pytest.mark.parametrize(("n_heads", "n_kv_heads", "size"), [(32, 8, 128), (6, 2, 64), (3, 1, 32)])
def test_heads_are_normed_rotated_and_cached_as_in_plain_torch(dtype, cached, n_heads, n_kv_heads, size):
    if INTERPRETED and cached is not None:
        cached = torch.float32
    n = 4
    qkv = values(n, (n_heads + 2 * n_kv_heads) * size, dtype=dtype)
    weights = [values(size, dtype=dtype, seed=seed) for seed in (1, 2)]
    cos_sin = values(50, size, dtype=torch.float32, seed=3)
    positions, places = (torch.tensor(which, device=DEVICE) for which in ([0, 49, 7, 7], [3, 0, 9, 4]))
    caches = [torch.zeros(2, 10, n_kv_heads, size, device=DEVICE).to(cached or dtype) for _ in range(2)]
    found, expected = (
        rule.rotate_and_cache(qkv, *weights, EPS, cos_sin, positions, keys, values_, places.int())
        for rule, (keys, values_) in zip((rotation, operations), caches, strict=True)
    )
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=2 * step, atol=8 * step)
    coarse = 0.125 if cached == FP8 else 2 * step
    torch.testing.assert_close(caches[0].float(), caches[1].float(), rtol=coarse, atol=8 * step)
    others = [place for place in range(10) if place not in places]
    assert caches[0].float()[:, others].abs().max() == 0
    assert caches[0].float()[:, places.long()].abs().amax(dim=(2, 3)).min() > 0


in_interpreter_without_gpu(globals())
