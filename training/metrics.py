"""Numbers of a step, read when the GPU has them and not when it is asked, so that nobody waits."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import TrainingError


@dataclass
class _Pending:
    host: Tensor
    event: Any  # torch.cuda.Event, or None on the CPU
    facts: dict[str, Any]
    counts: np.ndarray
    ended: float = field(default_factory=time.perf_counter)


class StepMetrics:
    """A step's numbers leave the device while the next step is computed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pending: _Pending | None = None
        self._last_ended = time.perf_counter()

    def put(self, numbers: Tensor, facts: dict[str, Any], counts: np.ndarray) -> dict[str, Any] | None:
        """Hand over a step, and get the one before.

        Args:
            numbers: [3 + n_vq] on the device: loss, norm of the gradient, then the channels' sums of cross entropy.
            facts: what is known on the host: `step` and `rows` among them.
            counts: [1 + n_vq] labels of the step.
        Returns:
            The line of the step before, if there was one.
        Raises:
            TrainingError: its loss was no number.
        """
        before = self.flush()
        host, event = numbers, None
        if self._device.type == "cuda":
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._pending = _Pending(host, event, facts, counts)
        return before

    def flush(self) -> dict[str, Any] | None:
        """The line of the step that was handed over last, as soon as it is there."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        ended = pending.ended
        if pending.event is not None:
            pending.event.synchronize()
            ended = time.perf_counter()
        loss, norm, *sums = pending.host.tolist()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"step {pending.facts['step']}: the loss is {loss}, the gradient {norm}; lower optimizer.rate, and go "
                "on from a checkpoint before"
            )
        channels = np.array(sums) / np.maximum(pending.counts, 1)
        seconds = max(ended - self._last_ended, 1e-9)
        self._last_ended = ended
        line = dict(pending.facts)
        waited_s, flops = line.pop("waited_s"), line.pop("flops")
        return line | {
            "loss": loss,
            "text_loss": float(channels[0]),
            "audio_loss": float(channels[1:].mean()),
            "channel_losses": [round(float(value), 5) for value in channels],
            "gradient_norm": norm,
            "seconds": seconds,
            "rows_per_s": line["rows"] / seconds,
            "waiting_share": waited_s / seconds,
            "tflops": flops / seconds / 1e12,
        }

    def rest(self) -> None:
        """Something else was done meanwhile: the next step's time begins now."""
        self._last_ended = time.perf_counter()
