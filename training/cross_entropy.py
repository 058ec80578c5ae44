"""Cross entropy of one block of logits, which becomes its own gradient.

    loss[r] = log sum_v exp(logits[r, v]) - logits[r, label[r]]
    logits[r, v] <- scale[r mod C] * (softmax(logits[r])[v] - (v == label[r]))

A row whose label is `IGNORED` has loss 0 and gradient 0. Sums are float32, whatever the logits are.
"""

import torch
from torch import Tensor

from .rows import IGNORED


def cross_entropy_(logits: Tensor, labels: Tensor, scales: Tensor) -> Tensor:
    """Losses of a block; `logits` holds their gradient afterwards.

    Args:
        logits: [R, V], contiguous.
        labels: [R] int32.
        scales: [C] float32 of the C channels that take turns in the rows; R is a multiple of C.
    Returns:
        [R] float32, not scaled.
    """
    if logits.device.type == "cuda":
        from .kernels.cross_entropy import cross_entropy_kernel

        return cross_entropy_kernel(logits, labels, scales)
    return cross_entropy_reference(logits, labels, scales)


def cross_entropy_reference(logits: Tensor, labels: Tensor, scales: Tensor) -> Tensor:
    """The rule in plain torch."""
    values = logits.float()
    is_learnt = labels != IGNORED
    at = torch.where(is_learnt, labels, 0).long()[:, None]
    log_sums = torch.logsumexp(values, dim=1, keepdim=True)
    losses = torch.where(is_learnt, (log_sums - values.gather(1, at))[:, 0], 0.0)
    gradient = torch.exp(values - log_sums)
    gradient.scatter_add_(1, at, torch.full_like(log_sums, -1.0))
    scale = scales.repeat(len(labels) // len(scales)) * is_learnt
    logits.copy_(gradient * scale[:, None])
    return losses
