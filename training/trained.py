"""What the optimizer steps: float32 weights, whatever the model computes in.

    Replicated   every rank has the whole model in the compute dtype, and float32 masters of what it trains; gradients
                 of micro-steps are added up in float32, and over ranks once a step
    Sharded      FSDP2: float32 weights in parts, gathered layer by layer in the compute dtype; gradients are added up
                 over ranks as they come

Both add gradients up over ranks: denominators count the labels of all of them.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from .distributed import World
from .model import SpeechModel

_BUCKET_BYTES = 256 * 1024**2


class Trained(Protocol):
    """Trainable weights."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """float32, by the model's names."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        ...

    def reduce(self) -> None:
        """Gradients of all micro-steps are there: add them up over ranks."""
        ...

    def publish(self) -> None:
        """The optimizer has stepped: let the model compute with what came of it."""
        ...


class Replicated:
    """See above."""

    def __init__(self, model: nn.Module, world: World) -> None:
        """Masters of the trainable parameters, not yet filled in; a float32 parameter is its own."""
        self._world = world
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        self._tensors: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                master = parameter
                if parameter.dtype != torch.float32:
                    master = parameter.detach().float()
                    self._pairs.append((parameter, master))
                    parameter.register_post_accumulate_grad_hook(_AddTo(master))
                self._tensors[name] = master

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self._tensors

    def zero_grad(self) -> None:
        for tensor in self.tensors.values():
            tensor.grad = None

    def reduce(self) -> None:
        if self._world.size > 1:
            for bucket in _buckets(list(self.tensors.values())):
                gradients = [tensor.grad for tensor in bucket if tensor.grad is not None]
                flat = torch.cat([gradient.flatten() for gradient in gradients])
                distributed.all_reduce(flat)
                parts = flat.split([gradient.numel() for gradient in gradients])
                shaped = [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]
                torch._foreach_copy_(gradients, shaped)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def publish(self) -> None:
        if self._pairs:
            parameters, masters = zip(*self._pairs, strict=True)
            torch._foreach_copy_(list(parameters), list(masters))  # pyright: ignore[reportPrivateImportUsage]


class Sharded:
    """See above."""

    def __init__(self, model: SpeechModel, dtype: torch.dtype) -> None:
        """Shard a float32 model in place; it may still be on the meta device."""
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in model.layers():
            fully_shard(layer, mp_policy=policy)
        fully_shard(model.lm_heads, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # a sum, no mean
                module.set_force_sum_reduction_for_comms(True)
        self._model = model
        self._tensors: dict[str, Tensor] | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        # Asked first before the model runs: meanwhile what is gathered takes the place of the parts.
        if self._tensors is None:
            self._tensors = dict(self._model.named_parameters())
        return self._tensors

    def zero_grad(self) -> None:
        self._model.zero_grad()

    def reduce(self) -> None:
        """FSDP2 has done it."""

    def publish(self) -> None:
        """What a pass without gradients has gathered goes, so that the next one gathers what is new."""
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


class _AddTo:
    """A parameter's gradient goes to its master at once, so that nothing is added up in 16 bit."""

    def __init__(self, master: Tensor) -> None:
        self._master = master

    def __call__(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None, "autograd has just made it"
        if self._master.grad is None:
            self._master.grad = gradient.float()
        else:
            self._master.grad.add_(gradient)
        parameter.grad = None


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    n_bytes = 0
    for tensor in tensors:
        if bucket and n_bytes + 4 * tensor.numel() > _BUCKET_BYTES:
            yield bucket
            bucket, n_bytes = [], 0
        bucket.append(tensor)
        n_bytes += 4 * tensor.numel()
    if bucket:
        yield bucket
