"""What the optimizer steps: float32 weights, whatever the model computes in.

    Replicated   every rank has the whole model in the compute dtype, and float32 masters of what it trains
    Sharded      FSDP2: float32 weights in parts, gathered in the compute dtype (`sharded`)

Both add gradients up, in float32: first over the micro-steps of a rank, then over ranks. A sum, since denominators
count the labels of all of them.
"""

import functools
from typing import Protocol

import torch
from torch import Tensor, nn

from .distributed import World
from .reducing import GradientSum

_FIRST_MODULES = ("language_model.embed_tokens.", "emb_ext.")  # the backward pass ends with them


class Trained(Protocol):
    """Trainable weights."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """float32, by the model's names."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        ...

    def micro_step(self, *, is_last: bool) -> None:
        """A forward and a backward pass come next, the last ones of a step or not."""
        ...

    def reduce(self) -> None:
        """Gradients of all micro-steps are there: wait until they are summed over ranks."""
        ...

    def publish(self) -> None:
        """The optimizer has stepped: let the model compute with what came of it."""
        ...


class Replicated:
    """See above."""

    def __init__(self, model: nn.Module, world: World) -> None:
        """Masters of the trainable parameters, not yet filled in; a float32 parameter is its own."""
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        self._tensors: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                master = parameter
                if parameter.dtype != torch.float32:
                    master = parameter.detach().float()
                    self._pairs.append((parameter, master))
                    parameter.register_post_accumulate_grad_hook(functools.partial(_add_to, master))
                self._tensors[name] = master
                if world.size > 1:  # after the other hook: they run in this order
                    parameter.register_post_accumulate_grad_hook(functools.partial(self._arrived, master))
        self._sum = GradientSum(_backward_order(self._tensors)) if world.size > 1 else None

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self._tensors

    def zero_grad(self) -> None:
        for tensor in self.tensors.values():
            tensor.grad = None

    def micro_step(self, *, is_last: bool) -> None:
        if self._sum is not None and is_last:
            self._sum.expect()

    def reduce(self) -> None:
        if self._sum is not None:
            self._sum.finish()

    @torch.no_grad()
    def publish(self) -> None:
        if self._pairs:
            parameters, masters = zip(*self._pairs, strict=True)
            torch._foreach_copy_(list(parameters), list(masters))  # pyright: ignore[reportPrivateImportUsage]

    def _arrived(self, master: Tensor, _parameter: Tensor) -> None:
        if self._sum is not None:
            self._sum.put(master)


def _add_to(master: Tensor, parameter: Tensor) -> None:
    """A parameter's gradient goes to its master at once, so that nothing is added up in 16 bit."""
    gradient = parameter.grad
    assert gradient is not None, "autograd has just made it"
    if master.grad is None:
        master.grad = gradient.float()
    else:
        master.grad.add_(gradient)
    parameter.grad = None


def _backward_order(tensors: dict[str, Tensor]) -> list[Tensor]:
    """As the backward pass comes to them; embeddings last, wherever they stand in the model."""
    names = list(tensors)[::-1]
    names.sort(key=lambda name: name.startswith(_FIRST_MODULES))
    return [tensors[name] for name in names]
