"""Ring KV cache: the last `window` keys and values of every slot, in memory of fixed shape.

    window 5, 7 rows seen      column   0   1   2   3   4      row p lives in column p % window
                               row      5   6   2   3   4

A step reads the old rows, attends, and then writes its new rows over the oldest ones: written first, they would take
keys away that the step's early queries still need. Writes that must leave no trace go to the scratch slot.
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

    slots: Tensor  # [B] slots to read from
    n_seen: Tensor  # [B] rows that the slot has seen before this step
    n_real: Tensor  # [B] real new rows
    positions: Tensor  # [B, S] absolute positions of the new rows
    write_slots: Tensor  # [B, S] where the new rows go; distinct but for the scratch slot's
    write_columns: Tensor  # [B, S]


def plan_access(batch: SlotBatch, n_frames: int, rows_per_frame: int, window: int) -> RingAccess:
    """Places of a step of `n_frames` frames (padding included) at a stage."""
    n_seen, n_real = batch.n_seen * rows_per_frame, batch.n_frames * rows_per_frame
    row = torch.arange(n_frames * rows_per_frame, device=batch.slots.device)
    positions = n_seen[:, None] + row
    # Of more than `window` new rows, the last ones are kept.
    kept = (row < n_real[:, None]) & (row >= n_real[:, None] - window)
    return RingAccess(
        slots=batch.slots,
        n_seen=n_seen,
        n_real=n_real,
        positions=positions,
        write_slots=torch.where(kept, batch.slots[:, None], batch.scratch_slot),
        write_columns=positions % window,
    )


@dataclass(frozen=True)
class RingKV:
    """One layer's cache; k and v are [n_slots + 1, window, n_heads, head_dim], the last slot is scratch."""

    k: Tensor
    v: Tensor

    @property
    def window(self) -> int:
        return self.k.shape[1]

    def history(self, access: RingAccess) -> tuple[Tensor, Tensor]:
        """Keys and values before the new rows, each [B, window - 1, n_heads, head_dim], oldest first.

        Zero where no row was ever written: a masked key weighs 0, but 0 times a NaN left by a failed stream is NaN.
        """
        before = access.n_seen[:, None] + torch.arange(1 - self.window, 0, device=self.k.device)
        at = (access.slots[:, None], before % self.window)
        missing = (before < 0)[:, :, None, None]
        return self.k[at].masked_fill_(missing, 0), self.v[at].masked_fill_(missing, 0)

    def write(self, access: RingAccess, k: Tensor, v: Tensor) -> None:
        """Store the new rows' keys and values, each [B, S, n_heads, head_dim]."""
        at = (access.write_slots, access.write_columns)
        self.k[at] = k.to(self.k.dtype)
        self.v[at] = v.to(self.v.dtype)
