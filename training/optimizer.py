"""AdamW, and which parameters it decays.

Source: upstream decays everything, norms and embeddings too (`decay_all`); the default here is matrices alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

STATES = ("step", "exp_avg", "exp_avg_sq")  # of each parameter


def is_decayed(name: str, tensor: Tensor, *, decay_all: bool) -> bool:
    """Whether weight decay pulls at a parameter: at matrices, but not at embeddings."""
    return decay_all or (tensor.dim() > 1 and "emb_ext." not in name and "embed_tokens." not in name)


def make_optimizer(
    parameters: Mapping[str, Tensor],
    *,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    decay_all: bool,
) -> AdamW:
    """A fused AdamW over float32 parameters by name; the learning rate is set at every step.

    Its state is filled with zeros at once, so that a checkpoint can be read into it.
    """
    groups = []
    for decays in (True, False):
        chosen = [p for name, p in parameters.items() if is_decayed(name, p, decay_all=decay_all) == decays]
        if chosen:
            groups.append({"params": chosen, "weight_decay": weight_decay if decays else 0.0})
    optimizer = AdamW(groups, lr=0.0, betas=(betas[0], betas[1]), eps=eps, fused=True)
    for parameter in parameters.values():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
    return optimizer


def set_rate(optimizer: AdamW, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients down to `max_norm` together; returns their norm before, on the device, without waiting for it."""
    norm: Any = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    torch.nn.utils.clip_grads_with_norm_(list(parameters), max_norm, norm, foreach=True)
    return norm
