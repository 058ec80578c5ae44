"""Codec state: what every slot's decoder, or encoder, remembers between steps, in memory of fixed shape and place.

    memory    slot 0: [stage 0: [layer 0: k, v] [layer 1: k, v] ...] [stage 1: ...] | slot 1: the same | ...

A slot is one stretch of memory, so that it is copied in one go, and the rings are views of it. A step writes into them
in place, so a CUDA graph captured over them stays right.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sglang_moss.codec.config import StageShape, TransformerShape
from sglang_moss.codec.ring import RingKV

_SHARE = 0.15  # of the device's memory, for the slots of running streams
_SLOTS_WITHOUT_GPU = 16
_MIN_SLOTS = 2


@dataclass(frozen=True)
class CodecState:
    """Ring KV caches of `n_slots` independent streams or clips, and one scratch slot for padding."""

    memory: Tensor  # [n_slots + 1, elements of a slot]
    rings: list[list[RingKV]]  # [transformer stage of the decoder or encoder][layer], views of `memory`
    frames_seen: Tensor  # [n_slots + 1] int64, frames that have passed since the slot was reset

    @classmethod
    def allocate(
        cls, stages: Iterable[StageShape], n_slots: int, device: torch.device, dtype: torch.dtype
    ) -> "CodecState":
        """Fresh slots for one side of the codec, all zeros; ValueError for `n_slots` below 1."""
        if n_slots < 1:
            raise ValueError(f"a codec state of {n_slots} slots was asked for, expected at least 1")
        shapes = _transformers(stages)
        with torch.inference_mode(False):  # an inference tensor could not be reset outside inference mode
            memory = torch.zeros(n_slots + 1, _slot_elements(shapes), dtype=dtype, device=device)
            frames_seen = torch.zeros(n_slots + 1, dtype=torch.int64, device=device)
            rings, start = [], 0
            for shape in shapes:
                rings.append([])
                for _ in range(shape.n_layers):
                    layer = memory[:, start : start + _layer_elements(shape)]
                    k, v = layer.unflatten(1, (2, shape.window, shape.n_heads, shape.head_dim)).unbind(1)
                    rings[-1].append(RingKV(k, v))
                    start += _layer_elements(shape)
        return cls(memory, rings, frames_seen)

    @staticmethod
    def slot_bytes(stages: Iterable[StageShape], dtype: torch.dtype) -> int:
        """What one more slot costs."""
        return _slot_elements(_transformers(stages)) * dtype.itemsize + torch.int64.itemsize

    @property
    def n_slots(self) -> int:
        return len(self.frames_seen) - 1

    @property
    def scratch_slot(self) -> int:
        """The slot to give to padding entries of a batch."""
        return self.n_slots

    def reset(self, slot: int) -> None:
        """Make a slot fresh, whatever it held: rows that a slot has not seen are never read."""
        self.frames_seen[slot].zero_()

    def copy_slot(self, source: int, target: int) -> None:
        """Let `target` continue where `source` stands; `source` stays as it is."""
        self.memory[target].copy_(self.memory[source])
        self.frames_seen[target].copy_(self.frames_seen[source])


def stream_slots(asked: int | None, wanted: int, slot_bytes: int, device: torch.device) -> int:
    """Slots for decoding streams: as many as `asked`, else as are `wanted`, within a share of the memory.

    Args:
        slot_bytes: what one slot costs (`Codec.slot_bytes`).
    """
    if asked is not None:
        return asked
    if device.type != "cuda":
        return max(_MIN_SLOTS, min(wanted, _SLOTS_WITHOUT_GPU))
    total = torch.cuda.get_device_properties(device).total_memory
    return max(_MIN_SLOTS, min(wanted, affordable_slots(total, slot_bytes)))


def affordable_slots(total_bytes: int, slot_bytes: int) -> int:
    """Slots for decoding streams that a device of so much memory has room for, beside all else."""
    return int(_SHARE * total_bytes) // slot_bytes


def codec_dtype(name: str, device: torch.device) -> torch.dtype:
    """The decoder's dtype for `--codec-dtype`; "auto" is float16 on a GPU, else float32."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def _transformers(stages: Iterable[StageShape]) -> list[TransformerShape]:
    return [shape for shape in stages if isinstance(shape, TransformerShape)]


def _layer_elements(shape: TransformerShape) -> int:
    return 2 * shape.window * shape.d_model


def _slot_elements(shapes: Iterable[TransformerShape]) -> int:
    return sum(shape.n_layers * _layer_elements(shape) for shape in shapes)
