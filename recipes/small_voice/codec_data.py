"""Clips for the codec, cut on the GPU from speech that lies there as a whole."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .codec_losses import letters_of
from .speech_store import Store

_CHUNK = 64 * 2**20


@dataclass(frozen=True)
class Clips:
    """Some clips of one length."""

    samples: Tensor  # [B, L] float32
    targets: Tensor  # [B, most letters] int64, of those clips that hold an utterance as a whole
    n_letters: Tensor  # [B] int64 on the CPU, 0 for the others


class ClipSource:
    """All utterances in the memory of one device, int16."""

    def __init__(self, store: Store, device: torch.device) -> None:
        total = int(store.lengths.sum())
        self._speech = torch.empty(total, dtype=torch.int16, device=device)
        self._starts = np.concatenate([[0], np.cumsum(store.lengths)])
        self._lengths = store.lengths
        at = 0
        for file, memory in enumerate(store.memory):  # utterances of a file lie behind each other
            size = int(store.lengths[store.files == file].sum())
            for start in range(0, size, _CHUNK):
                part = np.array(memory[start : min(start + _CHUNK, size)])
                self._speech[at : at + len(part)] = torch.from_numpy(part).to(device)
                at += len(part)
        assert at == total, "files hold what their lines say"
        letters = [letters_of(text) for text in store.texts]
        self._n_letters = np.array([len(row) for row in letters])
        padded = np.zeros((len(letters), max(self._n_letters.max(), 1)), np.int16)
        for i, row in enumerate(letters):
            padded[i, : len(row)] = row
        self._letters = torch.from_numpy(padded).to(device)
        self._device = device

    @property
    def hours(self) -> float:
        return len(self._speech) / 24_000 / 3600

    def draw(self, rng: np.random.Generator, n_clips: int, length: int, chosen: np.ndarray | None = None) -> Clips:
        """Clips of `length` samples: an utterance that is shorter somewhere within, or a part of a longer one."""
        if chosen is None:
            chosen = rng.integers(len(self._lengths), size=n_clips)
        spare = length - self._lengths[chosen]
        is_whole = spare >= 0
        # Where the utterance begins in the clip: before it, for a part.
        later, earlier = (rng.integers(0, np.maximum(room, 0) + 1) for room in (spare, -spare))
        offsets = np.where(is_whole, later, -earlier)
        n_letters = np.where(is_whole, self._n_letters[chosen], 0)
        packed = torch.from_numpy(np.stack([self._starts[chosen], self._lengths[chosen], offsets, chosen]))
        starts, lengths, places, ids = (
            packed.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else packed
        )
        at = torch.arange(length, device=self._device) - places[:, None]
        is_inside = (at >= 0) & (at < lengths[:, None])
        samples = self._speech[(starts[:, None] + at.clamp_min(0)).clamp_max(len(self._speech) - 1)]
        samples = samples.float() / 32768 * is_inside
        return Clips(samples, self._letters[ids].long(), torch.from_numpy(n_letters))
