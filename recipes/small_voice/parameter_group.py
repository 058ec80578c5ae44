"""Parameters that are trained together: one vector of gradients, one norm, one optimizer; the host is not asked."""

from collections.abc import Iterable

import torch
from torch import distributed, nn

_CLIP = 2.0  # times the mean norm of late
_FOLLOW = 0.02  # how fast that mean follows


class ParameterGroup:
    """AdamW over parameters whose gradients are views of one vector.

    A step whose norm is above `_CLIP` times the running mean is shortened to that; one that is no number is left out
    and counted: `n_bad` and `n_clipped` are for the caller to look at.

    Args:
        parameters: that are trained.
        rate: the highest learning rate.
        decay: of the weights.
        n_more: numbers behind the gradients that the processes average too.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, decay: float = 0.01, n_more: int = 0) -> None:
        self.parameters = list(parameters)
        device = self.parameters[0].device
        self.rate, self._is_cuda = rate, device.type == "cuda"
        n = sum(p.numel() for p in self.parameters)
        self.vector = torch.zeros(n + n_more, device=device)
        self.gradients, self.more = self.vector[:n], self.vector[n:]
        at = 0
        for parameter in self.parameters:
            parameter.grad = self.gradients[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()
        self._rate = torch.tensor(rate, device=device)
        self.n_steps, self.n_bad, self.n_clipped, self.mean_norm = (torch.zeros((), device=device) for _ in range(4))
        kwargs = {"capturable": True, "fused": True} if self._is_cuda else {}
        self.optimizer = torch.optim.AdamW(self.parameters, rate, betas=(0.8, 0.99), weight_decay=decay, **kwargs)
        self._put_rate()

    def set_rate(self, share: float) -> None:
        """Of the highest learning rate."""
        self._rate.fill_(self.rate * share)
        self._put_rate()

    def average(self) -> None:
        """Over all processes."""
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(self.vector)
            self.vector.div_(distributed.get_world_size())

    @torch.no_grad()
    def update(self) -> None:
        """Clip and step."""
        norm = self.gradients.norm()
        is_finite = norm.isfinite()
        limit = torch.where(self.n_steps > 0, _CLIP * self.mean_norm, 1e3)
        taken = torch.where(is_finite, torch.minimum(norm, limit), self.mean_norm)
        self.gradients.copy_(torch.where(is_finite, self.gradients * (taken / norm.clamp_min(1e-12)), 0.0))
        self.n_bad.add_(~is_finite)
        self.n_clipped.add_(norm > limit)
        self.n_steps.add_(is_finite)
        self.mean_norm.lerp_(taken, (1 / self.n_steps.clamp_min(1)).clamp_min(_FOLLOW))
        self.optimizer.step()

    def state(self) -> dict:
        """To go on from."""
        return {
            "parameters": [p.detach() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "mean_norm": self.mean_norm,
            "n_steps": self.n_steps,
        }

    @torch.no_grad()
    def load(self, state: dict) -> None:
        """What `state` gave."""
        for parameter, value in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self._put_rate()
        self.mean_norm.copy_(state["mean_norm"])
        self.n_steps.copy_(state["n_steps"])

    def _put_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate if self._is_cuda else float(self._rate)
