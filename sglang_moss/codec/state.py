"""Decoder state: what every slot's decoder remembers between steps, in memory of fixed shape and place.

    memory    slot 0: [stage 0: [layer 0: k, v] [layer 1: k, v] ...] [stage 1: ...] | slot 1: the same | ...

A slot is one stretch of memory, so that it is copied in one go, and the rings are views of it. A step writes into them
in place, so a CUDA graph captured over them stays right.
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

    memory: Tensor  # [n_slots + 1, elements of a slot]
    rings: list[list[RingKV]]  # [transformer stage of the decoder][layer], views of `memory`
    frames_seen: Tensor  # [n_slots + 1] int64, frames decoded since the slot was reset

    @classmethod
    def allocate(cls, config: CodecConfig, n_slots: int, device: torch.device, dtype: torch.dtype) -> "DecoderState":
        """Fresh slots, all zeros; ValueError for `n_slots` below 1."""
        if n_slots < 1:
            raise ValueError(f"a decoder state of {n_slots} slots was asked for, expected at least 1")
        with torch.inference_mode(False):  # an inference tensor could not be reset outside inference mode
            memory = torch.zeros(n_slots + 1, _slot_elements(config), dtype=dtype, device=device)
            frames_seen = torch.zeros(n_slots + 1, dtype=torch.int64, device=device)
            rings, start = [], 0
            for shape in _stages(config):
                rings.append([])
                for _ in range(shape.n_layers):
                    layer = memory[:, start : start + _layer_elements(shape)]
                    k, v = layer.unflatten(1, (2, shape.window, shape.n_heads, shape.head_dim)).unbind(1)
                    rings[-1].append(RingKV(k, v))
                    start += _layer_elements(shape)
        return cls(memory, rings, frames_seen)

    @staticmethod
    def slot_bytes(config: CodecConfig, dtype: torch.dtype) -> int:
        """What one more slot costs."""
        return _slot_elements(config) * dtype.itemsize + torch.int64.itemsize

    @property
    def n_slots(self) -> int:
        return len(self.frames_seen) - 1

    @property
    def scratch_slot(self) -> int:
        """The slot to give to padding entries of a batch."""
        return self.n_slots

    @property
    def bytes_per_slot(self) -> int:
        return self.memory[0].nbytes + self.frames_seen[0].nbytes

    def reset(self, slots: Tensor | Sequence[int]) -> None:
        """Make these slots fresh, whatever they held: rows that a slot has not seen are never read."""
        slots = torch.as_tensor(slots, dtype=torch.int64, device=self.frames_seen.device)
        self.frames_seen.index_fill_(0, slots, 0)

    def copy_slot(self, source: int, target: int) -> None:
        """Let `target` continue where `source` stands; `source` stays as it is."""
        self.memory[target].copy_(self.memory[source])
        self.frames_seen[target].copy_(self.frames_seen[source])


def _stages(config: CodecConfig) -> list[TransformerShape]:
    return [shape for shape in config.decoder if isinstance(shape, TransformerShape)]


def _layer_elements(shape: TransformerShape) -> int:
    return 2 * shape.window * shape.d_model


def _slot_elements(config: CodecConfig) -> int:
    return sum(shape.n_layers * _layer_elements(shape) for shape in _stages(config))
