"""Whether the kernels do on this GPU what plain torch does: asked once, before a server takes them."""

from typing import Any

import torch
from torch import Tensor

from sglang_moss.backbone import operations
from sglang_moss.backbone.kernels import step
from sglang_moss.backbone.operations import FP8

_TOLERANCE = 2e-2  # of values around 1: roundings to bfloat16
_STEP_OF_8_BITS = 0.125  # of a value: a rounding that falls the other way
_N = 5  # rows
_EPS = 1e-6
_RULES: tuple[Any, Any] = (step, operations)


def prove(
    hidden_size: int,
    intermediate_size: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Hold the kernels to plain torch on random rows of a model's sizes.

    Raises:
        RuntimeError: one differs by more than rounding explains.
    """
    random = _Random(dtype, device)
    _prove_quantized(random, hidden_size, intermediate_size)
    for cache_dtype, coarse in ((dtype, 0.0), (FP8, _STEP_OF_8_BITS)):
        _prove_rotation(random, n_heads, n_kv_heads, head_dim, cache_dtype, coarse)


class _Random:
    """Normal rows, always the same."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator).to(self.device, self.dtype)


def _prove_quantized(random: _Random, hidden_size: int, intermediate_size: int) -> None:
    x, weight, residual = random(_N, hidden_size), random(hidden_size), random(_N, hidden_size)
    sums = residual.clone(), residual.clone()
    normed = [rule.norm_quantized(x, total, weight, _EPS) for rule, total in zip(_RULES, sums, strict=True)]
    gate_up = random(_N, 2 * intermediate_size)
    gated = [rule.gate_quantized(gate_up) for rule in _RULES]
    for name, (found, expected) in (("norm", normed), ("gated product", gated)):
        _hold(f"the scales of a {name}", found.scales, expected.scales)
        _hold(f"a {name} in 8 bits", found.rows, expected.rows, _STEP_OF_8_BITS)
    _hold("a residual", *sums)


def _prove_rotation(
    random: _Random, n_heads: int, n_kv_heads: int, head_dim: int, cache_dtype: torch.dtype, coarse: float
) -> None:
    qkv = random(_N, (n_heads + 2 * n_kv_heads) * head_dim)
    weights = random(head_dim), random(head_dim)
    angles = random(_N, head_dim // 2).float()
    cos_sin = torch.cat([angles.cos(), angles.sin()], dim=1)
    positions = torch.arange(_N, device=random.device).flip(0)
    places = 2 * positions + 1
    both = [torch.zeros(2, 2 * _N, n_kv_heads, head_dim, device=random.device).to(cache_dtype) for _rule in _RULES]
    found, expected = (
        rule.rotate_and_cache(qkv, *weights, _EPS, cos_sin, positions, caches[0], caches[1], places)
        for rule, caches in zip(_RULES, both, strict=True)
    )
    _hold("rotated queries", found, expected)
    _hold("cached rows", both[0], both[1], coarse)


def _hold(what: str, found: Tensor, expected: Tensor, coarse: float = 0.0) -> None:
    found, expected = found.float(), expected.float()
    apart = ((found - expected).abs() - coarse * expected.abs()) / expected.abs().clamp(min=1)
    worst = apart.max().item()
    if not worst <= _TOLERANCE:  # nor NaN
        raise RuntimeError(
            f"sglang_moss: on this GPU {what} of a decoding step: {worst:.3g} away from what it should be (torch "
            f"{torch.__version__}); take --decoding-layers stock, and report it"
        )
