"""Weights: from the checkpoint's names and weight-norm halves to the codec's parameters, strictly.

Source: tensor names of MOSS-Audio-Tokenizer checkpoints; weight norm of `torch.nn.utils.parametrizations`.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

# Part of our parameter's name -> part of the checkpoint's name.
_RENAMED = {
    ".layers.": ".transformer.layers.",
    ".attention_norm.": ".norm1.",
    ".qkv.": ".self_attn.in_projs.0.",
    ".attention_out.": ".self_attn.out_projs.0.",
    ".attention_scale": ".layer_scale_1.scale",
    ".feed_forward_norm.": ".norm2.",
    ".up.": ".linear1.",
    ".down.": ".linear2.",
    ".feed_forward_scale": ".layer_scale_2.scale",
}
_NAMES_SHOWN = 10


class _Target(NamedTuple):
    """What one checkpoint tensor is to a parameter: all of it, or a half of its weight norm."""

    parameter: str
    part: Literal["whole", "length", "direction"]
    shape: tuple[int, ...]


def load_strictly(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Fill every parameter of a `Codec` from (checkpoint name, tensor) pairs in any order, each read once.

    Raises:
        ValueError: a name is unexpected, came twice or never came, or a shape is wrong; the message names it.
    """
    parameters = dict(module.named_parameters())
    targets = {name: target for p, value in parameters.items() for name, target in _targets(p, value).items()}
    seen: set[str] = set()
    waiting: dict[str, dict[str, Tensor]] = {}  # a weight-norm half until the other one comes
    for name, tensor in tensors:
        if name not in targets:
            raise ValueError(f"codec weight {name!r} is not in this config; do config and weights belong together?")
        if name in seen:
            raise ValueError(f"codec weight {name!r} came twice, expected each name once")
        seen.add(name)
        target = targets[name]
        if tuple(tensor.shape) != target.shape:
            raise ValueError(f"codec weight {name!r} has shape {tuple(tensor.shape)}, the config says {target.shape}")
        if target.part == "whole":
            _fill(parameters[target.parameter], tensor)
            continue
        halves = waiting.setdefault(target.parameter, {})
        halves[target.part] = tensor
        if len(halves) == 2:
            _fill(parameters[target.parameter], fold_weight_norm(halves["length"], halves["direction"]))
            del waiting[target.parameter]
    missing = [name for name in targets if name not in seen]
    if missing:
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        raise ValueError(f"codec weights are missing: {', '.join(missing[:_NAMES_SHOWN])}{more}")


def checkpoint_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The tensors that `load_strictly` wants for a `Codec`, by checkpoint name."""
    return {name: t.shape for p, value in module.named_parameters() for name, t in _targets(p, value).items()}


def fold_weight_norm(length: Tensor, direction: Tensor) -> Tensor:
    """The weight [out, in] of a 1x1 convolution: `direction` [out, in, 1], each output at `length` [out, 1, 1]."""
    direction = direction.float().flatten(1)
    return direction * (length.float().flatten(1) / direction.norm(dim=1, keepdim=True))


def _targets(parameter: str, value: Tensor) -> dict[str, _Target]:
    """The checkpoint tensors that make up one parameter, by name."""
    name = parameter
    for ours, theirs in _RENAMED.items():
        name = name.replace(ours, theirs)
    if not (name.startswith("quantizer.") and name.endswith("_proj.weight")):
        return {name: _Target(parameter, "whole", tuple(value.shape))}
    n_out, n_in = value.shape
    halves = name.removesuffix("weight") + "parametrizations.weight.original"
    return {
        f"{halves}0": _Target(parameter, "length", (n_out, 1, 1)),
        f"{halves}1": _Target(parameter, "direction", (n_out, n_in, 1)),
    }


@torch.no_grad()
def _fill(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.copy_(value)
