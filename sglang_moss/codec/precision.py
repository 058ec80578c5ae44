"""In which precision the matrix products of a side's layers are: nearly all of its weights and of its arithmetic."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sglang_moss.codec.fp16x3 import Fp16x3Linear
from sglang_moss.codec.transformer import TransformerStage

IEEE, FP16X3 = "ieee", "fp16x3"  # of the encoder
_HOPPER = 9  # compute capability: what its codes were found equal on


def encoder_precision(name: str, device: torch.device) -> str:
    """The encoder's precision for `--codec-encoder-precision`; "auto" is fp16x3 on a Hopper GPU, else ieee."""
    if name != "auto":
        return name
    is_hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == _HOPPER
    return FP16X3 if is_hopper else IEEE


def use_dtype(side: str, stages: nn.ModuleList, dtype: torch.dtype) -> None:
    """Keep the layers' linear weights in `dtype`, and so the operands of their products.

    Args:
        side: where the stages are, for the message.
    Raises:
        ValueError: a weight is not finite in `dtype`; the message names it, and nothing was changed.
    """
    linears = _linears(side, stages)
    with torch.no_grad():
        bad = _first_not_finite((name, linear.weight.to(dtype)) for name, linear in linears.items())
        if bad is not None:
            raise ValueError(f"codec weight {bad} is not finite in {dtype}; serve the {side} in another dtype")
        for linear in linears.values():
            linear.weight = nn.Parameter(linear.weight.to(dtype), requires_grad=False)


def use_fp16x3(stages: nn.ModuleList) -> None:
    """Have the layers' products on tensor cores, to be packed once the weights are there."""
    for stage in stages:
        if isinstance(stage, TransformerStage):
            for layer in stage.transformer_layers:
                layer.to_fp16x3()


def unpack_fp16x3(stages: nn.ModuleList) -> None:
    """Take the weights for float32 again, because they are about to be filled."""
    for linear in _linears("", stages).values():
        if isinstance(linear, Fp16x3Linear):
            linear.is_packed = False


def pack_fp16x3(side: str, stages: nn.ModuleList) -> None:
    """Turn weights that have been filled into their halves, where `use_fp16x3` wants it.

    Raises:
        ValueError: a weight is too large for halves; the message names it.
    """
    linears = {name: linear for name, linear in _linears(side, stages).items() if isinstance(linear, Fp16x3Linear)}
    for linear in linears.values():
        linear.pack()
    bad = _first_not_finite((name, linear.halves) for name, linear in linears.items())
    if bad is not None:
        raise ValueError(f"codec weight {bad} is too large for fp16x3: take --codec-encoder-precision ieee")


def _first_not_finite(weights: Iterable[tuple[str, Tensor]]) -> str | None:
    """Its name, if there is one; no more than one weight is held at a time, and the device is waited for once."""
    found = {name: weight.isfinite().all() for name, weight in weights}
    are_finite = torch.stack([*found.values()]).tolist() if found else []
    return next((name for name, good in zip(found, are_finite, strict=True) if not good), None)


def _linears(side: str, stages: nn.ModuleList) -> dict[str, nn.Linear | Fp16x3Linear]:
    """By the name of the weight."""
    return {
        f"{side}.{i}.layers.{j}.{name}.weight": linear
        for i, stage in enumerate(stages)
        if isinstance(stage, TransformerStage)
        for j, layer in enumerate(stage.transformer_layers)
        for name, linear in layer.linears.items()
    }
