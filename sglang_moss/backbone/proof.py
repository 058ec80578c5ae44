"""Whether the kernels do on this GPU what plain torch does: asked once, before a server takes them."""

from typing import Any

import torch
from torch import Tensor

from sglang_moss.backbone import operations
from sglang_moss.backbone.cut import Cut, cut_for
from sglang_moss.backbone.kernels import step
from sglang_moss.backbone.operations import FP8, Quantized

_TOLERANCE = 2e-2  # of values around 1: roundings to bfloat16
_STEP_OF_8_BITS = 0.125  # of a value: a rounding that falls the other way
_N = 5  # rows
_ROWS_OF_PRODUCTS = (5, 17, 64)  # each in a tile of its own
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
    _prove_products(random, hidden_size, intermediate_size, n_heads * head_dim, (n_heads + 2 * n_kv_heads) * head_dim)
    for cache_dtype, coarse in ((dtype, 0.0), (FP8, _STEP_OF_8_BITS)):
        _prove_rotation(random, n_heads, n_kv_heads, head_dim, cache_dtype, coarse)


class _Random:
    """Normal rows, always the same."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._generator = torch.Generator("cpu").manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        # A model is built where tensors lie on the GPU unless they say otherwise.
        return torch.randn(*shape, generator=self._generator, device="cpu", dtype=torch.float32).to(
            self.device, self.dtype
        )


def _prove_quantized(random: _Random, hidden_size: int, intermediate_size: int) -> None:
    x, weight, residual = random(_N, hidden_size), random(hidden_size), random(_N, hidden_size)
    gate_up = random(_N, 2 * intermediate_size)
    x[0] = gate_up[0] = 0
    sums = residual.clone(), residual.clone()
    _hold_quantized("a norm", *(rule.norm_quantized(x, None, weight, _EPS) for rule in _RULES))
    added = [rule.norm_quantized(x, total, weight, _EPS) for rule, total in zip(_RULES, sums, strict=True)]
    _hold_quantized("a norm of a sum", *added)
    _hold("a residual", *sums)
    _hold_quantized("a gated product", *(rule.gate_quantized(gate_up) for rule in _RULES))


def _prove_products(random: _Random, hidden: int, intermediate: int, attended: int, qkv: int) -> None:
    for size, n_columns, may_have_parts in (
        (hidden, qkv, False),
        (attended, hidden, True),
        (hidden, 2 * intermediate, False),
        (intermediate, hidden, True),
    ):
        cuts = [(n, cut_for(n, n_columns, size, may_have_parts)) for n in _ROWS_OF_PRODUCTS]
        if all(cut is None for _, cut in cuts):
            continue
        columns = operations.quantize(random(n_columns, size))
        for n, cut in cuts:
            if cut is not None:
                _prove_product(random, operations.quantize(random(n, size)), columns, cut)


def _prove_product(random: _Random, rows: Quantized, columns: Quantized, cut: Cut) -> None:
    size, n_columns = rows.rows.shape[1], len(columns.rows)
    given = rows, columns.rows.t(), columns.scales / size**0.5, cut
    found, expected = (rule.multiply(*given) for rule in _RULES)
    _hold("a product", found, expected)
    if cut.parts == 1:
        return
    weight, residual = random(n_columns), random(len(rows.rows), n_columns)
    # Of the same parts: what little these are apart a norm makes larger where they and the residual cancel.
    added = [rule.norm_quantized(expected, residual.clone(), weight, _EPS) for rule in _RULES]
    _hold_quantized("a norm of parts", *added)


def _prove_rotation(
    random: _Random, n_heads: int, n_kv_heads: int, head_dim: int, cache_dtype: torch.dtype, coarse: float
) -> None:
    qkv = random(_N, (n_heads + 2 * n_kv_heads) * head_dim)
    weights = random(head_dim), random(head_dim)
    angles = random(_N, head_dim // 2).float()
    cos_sin = torch.cat([angles.cos(), angles.sin()], dim=1)
    positions = torch.arange(_N, device=random.device).flip(0)
    for index in (torch.int64, torch.int32):
        places = (2 * positions + 1).to(index)
        shape = (2, 2 * _N, n_kv_heads, head_dim)
        both = [torch.zeros(shape, device=random.device, dtype=random.dtype).to(cache_dtype) for _rule in _RULES]
        found, expected = (
            rule.rotate_and_cache(qkv, *weights, _EPS, cos_sin, positions, caches[0], caches[1], places)
            for rule, caches in zip(_RULES, both, strict=True)
        )
        _hold("rotated queries", found, expected)
        _hold("cached rows", both[0], both[1], coarse)


def _hold_quantized(what: str, found: Quantized, expected: Quantized) -> None:
    is_zero = expected.scales == 0
    ratio = torch.where(is_zero, 1 + found.scales, found.scales / expected.scales)
    _hold(f"the scales of {what}", ratio, torch.ones_like(ratio))
    _hold(f"{what} in 8 bits", found.rows, expected.rows, _STEP_OF_8_BITS)


def _hold(what: str, found: Tensor, expected: Tensor, coarse: float = 0.0) -> None:
    found, expected = found.float(), expected.float()
    apart = ((found - expected).abs() - coarse * expected.abs()) / expected.abs().clamp(min=1)
    worst = apart.max().item()
    if not worst <= _TOLERANCE:  # nor NaN
        raise RuntimeError(
            f"sglang_moss: on this GPU {what} of a decoding step: {worst:.3g} away from what it should be (torch "
            f"{torch.__version__}); take --decoding-layers stock, and report it"
        )
