"""Full training on several ranks: FSDP2, float32 weights in parts, gathered in the compute dtype.

    exchange   step   weights are gathered once a step and kept for all of its micro-steps; each rank adds its gradients
                      up whole, in float32, and ranks exchange them during the last backward pass. Takes the model in
                      the compute dtype, and where a rank has several micro-steps a float32 gradient, on every GPU
               pack   weights are gathered layer by layer in every pass, gradients exchanged in every backward pass

Every layer is a group of its own: while one computes, the next is gathered and the gradients of the one before are
exchanged. The heads are another; embeddings are the rest, whose gradient is there only when the pass has ended.
Gradients are exchanged in float32. In bfloat16 they would be half as long, but two ranks would no longer give the
losses of one.
"""

import itertools
from typing import Literal

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from .model import SpeechModel

Exchange = Literal["step", "pack"]


class Sharded:
    """`trained.Trained` of a sharded model."""

    def __init__(self, model: SpeechModel, dtype: torch.dtype, exchange: Exchange) -> None:
        """Shard a float32 model in place; it may still be on the meta device."""
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        layers = list(model.layers())
        for layer in layers:
            # The backward pass begins with the last layer: what it needs is not let go.
            let_go = exchange == "pack" and layer is not layers[-1]
            fully_shard(layer, mp_policy=policy, reshard_after_forward=let_go)
        fully_shard(model.lm_heads, mp_policy=policy, reshard_after_forward=False)  # their gradients are made already
        fully_shard(model, mp_policy=policy, reshard_after_forward=False)
        groups = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for group in groups:
            group.set_gradient_divide_factor(1.0)  # a sum, no mean
            group.set_force_sum_reduction_for_comms(True)
        _prefetch([model, *layers, model.lm_heads])
        self._model = model
        self._groups = groups
        self._exchanges_once = exchange == "step"
        self._tensors: dict[str, Tensor] | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        # Asked first before the model runs: meanwhile what is gathered takes the place of the parts.
        if self._tensors is None:
            self._tensors = dict(self._model.named_parameters())
        return self._tensors

    def zero_grad(self) -> None:
        self._model.zero_grad()

    def micro_step(self, *, is_last: bool) -> None:
        if self._exchanges_once:
            for group in self._groups:
                group.set_requires_gradient_sync(is_last, recurse=False)
                group.set_reshard_after_backward(is_last, recurse=False)

    def reduce(self) -> None:
        """FSDP2 has done it."""

    def publish(self) -> None:
        """What a pass without gradients has gathered goes, so that the next one gathers what is new."""
        for group in self._groups:
            group.reshard()


def _prefetch(modules: list[torch.nn.Module]) -> None:
    """Gather each group while the one before computes, without waiting for Python to come there."""
    groups = [module for module in modules if isinstance(module, FSDPModule)]
    assert len(groups) == len(modules), "every one of them is sharded"
    for group, following in itertools.pairwise(groups):
        group.set_modules_to_forward_prefetch([following])
    for following, group in itertools.pairwise(groups):
        group.set_modules_to_backward_prefetch([following])
