"""Decoder state: what every slot's decoder remembers between steps, in memory of fixed shape and place.

A step writes into it in place, so a CUDA graph captured over it stays right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sglang_moss.codec.config import CodecConfig, TransformerShape
from sglang_moss.codec.ring import RingKV


@dataclass(frozen=True)
class DecoderState:
    """Ring KV caches of `n_slots` independent streams, and one scratch slot for padding."""

    rings: list[list[RingKV]]  # [transformer stage of the decoder][layer]
    frames_seen: Tensor  # [n_slots + 1] int64, frames decoded since the slot was reset

    @classmethod
    def allocate(cls, config: CodecConfig, n_slots: int, device: torch.device, dtype: torch.dtype) -> "DecoderState":
        """Fresh slots, all zeros; ValueError for `n_slots` below 1."""
        if n_slots < 1:
            raise ValueError(f"a decoder state of {n_slots} slots was asked for, expected at least 1")
        stages = [shape for shape in config.decoder if isinstance(shape, TransformerShape)]
        with torch.inference_mode(False):  # an inference tensor could not be reset outside inference mode
            rings = [[_new_ring(shape, n_slots + 1, device, dtype) for _ in range(shape.n_layers)] for shape in stages]
            return cls(rings, torch.zeros(n_slots + 1, dtype=torch.int64, device=device))

    @property
    def n_slots(self) -> int:
        return len(self.frames_seen) - 1

    @property
    def scratch_slot(self) -> int:
        """The slot to give to padding entries of a batch."""
        return self.n_slots

    @property
    def bytes_per_slot(self) -> int:
        return sum(ring.k[0].nbytes + ring.v[0].nbytes for rings in self.rings for ring in rings) + 8

    def reset(self, slots: Tensor | Sequence[int]) -> None:
        """Make these slots fresh, whatever they held."""
        slots = torch.as_tensor(slots, dtype=torch.int64, device=self.frames_seen.device)
        self.frames_seen.index_fill_(0, slots, 0)
        for rings in self.rings:
            for ring in rings:
                ring.reset(slots)


def _new_ring(shape: TransformerShape, n_slots: int, device: torch.device, dtype: torch.dtype) -> RingKV:
    size = (n_slots, shape.window, shape.n_heads, shape.head_dim)
    return RingKV(torch.zeros(size, dtype=dtype, device=device), torch.zeros(size, dtype=dtype, device=device))
