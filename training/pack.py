"""One pack as tensors: examples behind each other, each a segment of its own.

    rows      | example 0: all but its last | example 1: all but its last | ... | filler |
    labels      what row s of an example is asked for is its row s + 1, so nothing crosses a border

The filler makes shapes repeat. It is cut into short segments, learns nothing, and is seen by nobody.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .rows import IGNORED

_FILLER_ROWS = 256  # longest segment of filler


@dataclass(frozen=True)
class Pack:
    """Tensors of one forward pass, all on one device."""

    rows: Tensor  # [N, 1 + n_vq] int32
    positions: Tensor  # [N] int32, from 0 in every segment
    cu_seqlens: Tensor  # [n_segments + 1] int32
    learnt: Tensor  # [M] int64, ascending: the rows that have a label
    labels: Tensor  # [M, 1 + n_vq] int32
    scales: Tensor  # [1 + n_vq] float32: what each channel's sum of cross entropies is multiplied by
    max_rows: int  # of the longest segment
    n_example_rows: int  # rows that are no filler

    def to(self, device: torch.device) -> "Pack":
        """The same on a device, without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Pack":
        """The same in memory that a copy to a GPU need not wait for."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Pack":
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


def make_pack(
    examples: Sequence[tuple[np.ndarray, np.ndarray]], scales: np.ndarray, pad_to: int = 1, fill_rows: int = 0
) -> Pack:
    """Pack examples in the order given.

    Args:
        examples: rows [S, 1 + n_vq] and labels [S - 1, 1 + n_vq] of each, int32.
        scales: [1 + n_vq] of the loss.
        pad_to: fill up to a multiple of so many rows.
        fill_rows: fill up to at least so many.
    """
    inputs = [rows[:-1] for rows, _ in examples]
    labels = np.concatenate([labels for _, labels in examples])
    lengths = [len(rows) for rows in inputs]
    n_rows = sum(lengths)
    missing = -(-max(n_rows, fill_rows) // pad_to) * pad_to - n_rows
    filler = [_FILLER_ROWS] * (missing // _FILLER_ROWS) + [missing % _FILLER_ROWS] * bool(missing % _FILLER_ROWS)
    rows = np.concatenate([*inputs, np.broadcast_to(inputs[0][:1], (missing, inputs[0].shape[1]))])
    segments = lengths + filler
    learnt = np.flatnonzero((labels != IGNORED).any(1))
    return Pack(
        rows=torch.from_numpy(rows),
        positions=torch.from_numpy(np.concatenate([np.arange(n, dtype=np.int32) for n in segments])),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], np.cumsum(segments)]).astype(np.int32)),
        learnt=torch.from_numpy(learnt),
        labels=torch.from_numpy(labels[learnt]),
        scales=torch.from_numpy(scales.astype(np.float32)),
        max_rows=max(segments),
        n_example_rows=n_rows,
    )
