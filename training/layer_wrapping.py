"""Activation checkpointing and compilation of the backbone's layers.

none        everything that the backward pass needs is kept
selective   of every layer the attention's output is kept; of a share of the layers, matrix products too; what lies
            between them is computed again
full        only what goes into each layer is kept
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from . import lora_linear
from .attention import attention_ops
from .config import ComputeConfig
from .model import SpeechModel

_PRODUCTS = frozenset(
    {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.linear.default, lora_linear.OPERATION}
)


def wrap_layers(model: SpeechModel, config: ComputeConfig) -> None:
    """Change how the layers of `model` run, in place; names of parameters stay as they are."""
    for i, layer in enumerate(model.layers()):
        keeps = int((i + 1) * config.saved_share) > int(i * config.saved_share)
        layer.forward = _checkpointed(layer, config.checkpointing, keeps_products=keeps)
        if config.compile:
            layer.forward = torch.compile(layer.forward)
    if config.compile:
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)


def _checkpointed(layer: nn.Module, kind: str, *, keeps_products: bool) -> Callable[..., Any]:
    if kind == "none":
        return layer.forward
    context = {}
    if kind == "selective":
        context = {"context_fn": _contexts(keeps_products)}
    return functools.partial(
        checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=_drops(layer), **context
    )


@functools.cache
def _contexts(keeps_products: bool) -> Callable[..., Any]:
    """One for all layers of a kind, so that they share what is compiled."""
    kept = attention_ops() | (_PRODUCTS if keeps_products else frozenset())
    return functools.partial(create_selective_checkpoint_contexts, _Policy(kept))


class _Policy:
    """Which results of operations are kept."""

    def __init__(self, kept: frozenset[Any]) -> None:
        self._kept = kept

    def __call__(self, _context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
        kept = operation in self._kept
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _drops(layer: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in layer.modules())
