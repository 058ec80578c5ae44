"""Connectionist temporal classification without a word from the host: torch's own reads its lengths there, which
a captured graph must not.
"""

from typing import Any

import torch
from torch import Tensor

_NEVER = -1e30


def ctc_losses(log_probabilities: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """Negative log-likelihood of every row's labels over all steps.

    Args:
        log_probabilities: [T, B, n_labels] float32, label 0 the blank.
        targets: [B, S] int64, what is behind a row's length is not looked at.
        lengths: [B] int64 on the same device.
    Returns:
        [B] float32; 0, without a gradient, of rows that are empty or do not fit.
    """
    return _Ctc.apply(log_probabilities, targets, lengths)


class _Ctc(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_probabilities: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        n_steps, n_rows, _ = log_probabilities.shape
        n_states = 2 * targets.shape[1] + 1
        state = torch.arange(n_states, device=targets.device)
        place = torch.arange(targets.shape[1], device=targets.device)
        reverse = (lengths[:, None] - 1 - place).clamp_min(0)
        labels = torch.cat([targets, targets.gather(1, reverse)])  # forwards, then backwards
        states = torch.zeros(2 * n_rows, n_states, dtype=torch.int64, device=targets.device)
        states[:, 1::2] = labels
        emitted = log_probabilities.gather(2, states[:n_rows].expand(n_steps, -1, -1))
        backwards = log_probabilities.gather(2, states[n_rows:].expand(n_steps, -1, -1)).flip(0)
        both = torch.cat([emitted, backwards], 1)
        may_skip = torch.zeros_like(states, dtype=torch.bool)
        may_skip[:, 3::2] = labels[:, 1:] != labels[:, :-1]
        skip = torch.where(may_skip, 0.0, _NEVER)

        alpha = both.new_full((n_steps, 2 * n_rows, n_states + 2), _NEVER)
        alpha[0, :, 2:4] = both[0, :, :2]
        for t in range(1, n_steps):
            before = alpha[t - 1]
            stay_or_next = torch.logaddexp(before[:, 2:], before[:, 1:-1])
            torch.add(torch.logaddexp(stay_or_next, before[:, :-2] + skip), both[t], out=alpha[t, :, 2:])
        ahead, back = alpha[:, :n_rows, 2:], alpha[:, n_rows:, 2:].flip(0)
        last = (2 * lengths)[:, None]
        ends = ahead[-1].gather(1, torch.cat([last, (last - 1).clamp_min(0)], 1))
        likelihood = torch.logaddexp(ends[:, 0], ends[:, 1])
        fits = (lengths > 0) & (likelihood > 0.1 * _NEVER)
        back = back.gather(2, (last - state).clamp_min(0).expand(n_steps, -1, -1))
        counts = fits[:, None] & (state <= last)
        known = torch.where(counts, ahead + back - emitted - likelihood[:, None], _NEVER).exp()
        gradient = torch.zeros_like(log_probabilities)
        gradient.scatter_add_(2, states[:n_rows].expand(n_steps, -1, -1), -known)
        ctx.save_for_backward(gradient)
        return torch.where(fits, -likelihood, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][:, None], None, None
