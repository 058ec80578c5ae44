"""In which precision the matrix products of a side's layers are: nearly all of its weights and of its arithmetic."""

import torch
from torch import nn

from sglang_moss.codec.fp16x3 import Fp16x3Linear
from sglang_moss.codec.transformer import TransformerLayer, TransformerStage


def use_dtype(side: str, stages: nn.ModuleList, dtype: torch.dtype) -> None:
    """Keep the layers' linear weights in `dtype`, and so the operands of their products.

    Args:
        side: where the stages are, for the message.
    Raises:
        ValueError: a weight is not finite in `dtype`; the message names it, and nothing was changed.
    """
    linears = {
        f"{side}.{where}.{name}.weight": linear
        for where, layer in _layers(stages).items()
        for name, linear in layer.linears.items()
    }
    with torch.no_grad():
        finite = torch.stack([linear.weight.to(dtype).isfinite().all() for linear in linears.values()]).tolist()
        if not all(finite):
            name = next(name for name, good in zip(linears, finite, strict=True) if not good)
            raise ValueError(f"codec weight {name} is not finite in {dtype}; serve the {side} in another dtype")
        for linear in linears.values():
            linear.weight = nn.Parameter(linear.weight.to(dtype), requires_grad=False)


def use_fp16x3(stages: nn.ModuleList) -> None:
    """Have the layers' products on tensor cores, to be packed once the weights are there."""
    for layer in _layers(stages).values():
        layer.to_fp16x3()


def unpack_fp16x3(stages: nn.ModuleList) -> None:
    """Take the weights for float32 again, because they are about to be filled."""
    for linear in _fp16x3_linears(stages).values():
        linear.is_packed = False


def pack_fp16x3(side: str, stages: nn.ModuleList) -> None:
    """Turn weights that have been filled into their halves, where `use_fp16x3` wants it.

    Raises:
        ValueError: a weight is too large for halves; the message names it.
    """
    linears = _fp16x3_linears(stages)
    for linear in linears.values():
        linear.pack()
    if not linears:
        return
    finite = torch.stack([linear.halves.isfinite().all() for linear in linears.values()]).tolist()
    if not all(finite):
        name = next(name for name, good in zip(linears, finite, strict=True) if not good)
        raise ValueError(f"codec weight {side}.{name} is too large for fp16x3: take --codec-encoder-precision ieee")


def _fp16x3_linears(stages: nn.ModuleList) -> dict[str, Fp16x3Linear]:
    return {
        f"{where}.{name}.weight": linear
        for where, layer in _layers(stages).items()
        for name, linear in layer.linears.items()
        if isinstance(linear, Fp16x3Linear)
    }


def _layers(stages: nn.ModuleList) -> dict[str, TransformerLayer]:
    """By "STAGE.layers.LAYER", as in the parameters' names."""
    return {
        f"{i}.layers.{j}": layer
        for i, stage in enumerate(stages)
        if isinstance(stage, TransformerStage)
        for j, layer in enumerate(stage.transformer_layers)
    }
