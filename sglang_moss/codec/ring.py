"""Ring KV cache: the last `window` keys and values of every slot, in memory of fixed shape.

    window 5, 7 rows seen      column   0   1   2   3   4      row p lives in column p % window
                               row      5   6   2   3   4

A step reads the old rows in order, attends, and then writes its new rows over the oldest ones: written first, they
would take keys away that the step's early queries still need. Writes that must leave no trace go to the scratch slot.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SlotBatch:
    """Who takes part in a step: one slot per batch entry, and how many of its frames are real."""

    slots: Tensor  # [B] int64
    n_seen: Tensor  # [B] int64, frames that the slot has seen before this step
    n_frames: Tensor  # [B] int64, real new frames; the rest of the entry is padding
    scratch_slot: int


@dataclass(frozen=True)
class RingAccess:
    """Where one stage reads and writes in a step; the same for each of its layers."""

    positions: Tensor  # [B, S] absolute positions of the new rows
    read_at: Tensor  # [B, window - 1] flat places of the rows before them, oldest first
    n_missing: Tensor  # [B] how many of these, from the oldest on, were never written
    write_at: Tensor  # [B, S] flat places of the new rows; distinct but for the scratch slot's


def plan_access(batch: SlotBatch, n_frames: int, rows_per_frame: int, window: int) -> RingAccess:
    """Places of a step of `n_frames` frames (padding included) at a stage."""
    device = batch.slots.device
    n_seen = batch.n_seen[:, None] * rows_per_frame
    n_real = batch.n_frames[:, None] * rows_per_frame
    slot_start = batch.slots[:, None] * window

    before = n_seen + torch.arange(1 - window, 0, device=device)
    row = torch.arange(n_frames * rows_per_frame, device=device)
    positions = n_seen + row
    kept = (row < n_real) & (row >= n_real - window)  # of more than `window` new rows, the last ones
    column = positions % window
    return RingAccess(
        positions=positions,
        read_at=slot_start + before % window,
        n_missing=(window - 1 - n_seen[:, 0]).clamp(min=0),
        write_at=torch.where(kept, slot_start + column, batch.scratch_slot * window + column),
    )


@dataclass(frozen=True)
class RingKV:
    """One layer's cache; k and v are [n_slots + 1, window, n_heads, head_dim], the last slot is scratch."""

    k: Tensor
    v: Tensor

    def history(self, access: RingAccess) -> tuple[Tensor, Tensor]:
        """Keys and values before the new rows, each [B, window - 1, n_heads, head_dim]."""
        return self.k.flatten(0, 1)[access.read_at], self.v.flatten(0, 1)[access.read_at]

    def write(self, access: RingAccess, k: Tensor, v: Tensor) -> None:
        """Store the new rows' keys and values, each [B, S, n_heads, head_dim]."""
        self.k.flatten(0, 1)[access.write_at] = k
        self.v.flatten(0, 1)[access.write_at] = v

    def reset(self, slots: Tensor) -> None:
        # Masked keys weigh 0, but 0 times a NaN left by a failed stream is NaN.
        self.k.index_fill_(0, slots, 0)
        self.v.index_fill_(0, slots, 0)
