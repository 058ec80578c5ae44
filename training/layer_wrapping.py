"""Activation checkpointing and compilation of the backbone's layers.

none        everything that the backward pass needs is kept
selective   of every layer the attention's output is kept; of a share of the layers, matrix products too; what lies
            between them is computed again
full        only what goes into each layer is kept
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from . import lora_linear
from .attention import attention_ops
from .config import ComputeConfig
from .model import SpeechModel

_PRODUCTS = frozenset({torch.ops.aten.mm.default, torch.ops.aten.addmm.default})


def wrap_layers(model: SpeechModel, config: ComputeConfig) -> None:
    """Change how the layers of `model` run, in place; names of parameters stay as they are."""
    run = torch.compile(_run) if config.compile else _run
    for i, layer in enumerate(model.layers()):
        keeps = int((i + 1) * config.saved_share) > int(i * config.saved_share)
        layer.forward = functools.partial(run, layer, config.checkpointing, keeps)
    if config.compile:
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)


def _run(layer: nn.Module, checkpointing: str, keeps_products: bool, *args: Any, **kwargs: Any) -> Any:
    """A layer's own forward; as one function of the layer, so that all layers share what is compiled."""
    forward = type(layer).forward
    if checkpointing == "none":
        return forward(layer, *args, **kwargs)
    context = {"context_fn": _CONTEXTS[keeps_products]} if checkpointing == "selective" else {}
    return checkpoint(forward, layer, *args, use_reentrant=False, preserve_rng_state=_drops(layer), **context, **kwargs)


class _Policy:
    """Which results of operations are kept.

    The last product of a layer makes it narrow again. Nothing of the backward pass needs its result, so that it is
    computed again only where it is one operation with its adapter; there it is always kept, since it saves the most
    work for the memory that it takes.
    """

    def __init__(self, keeps_products: bool) -> None:
        self._keeps_products = keeps_products
        self._attention = attention_ops()

    def __call__(self, _context: Any, operation: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
        kept = operation in self._attention
        if operation is lora_linear.OPERATION:
            n_out, n_in = args[1].shape
            kept = self._keeps_products or n_out < n_in
        elif operation in _PRODUCTS:
            n_in, n_out = args[-1].shape
            kept = self._keeps_products and n_out >= n_in
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


_CONTEXTS = {
    keeps_products: functools.partial(create_selective_checkpoint_contexts, _Policy(keeps_products))
    for keeps_products in (False, True)
}


def _drops(layer: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in layer.modules())
