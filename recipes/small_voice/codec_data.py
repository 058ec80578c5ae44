"""Clips for the codec, cut on the GPU from speech that lies there as a whole."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .letters import letters_of
from .speech_store import Store

_CHUNK = 64 * 2**20
MOST_LETTERS = 64  # a clip of more is as one without


@dataclass(frozen=True)
class Clips:
    """Some clips of one length."""

    samples: Tensor  # [B, L] float32
    targets: Tensor  # [B, MOST_LETTERS] int64, of those clips that hold an utterance as a whole
    n_letters: Tensor  # [B] int64, 0 for the others


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
        self._n_letters = np.array([len(row) if len(row) <= MOST_LETTERS else 0 for row in letters])
        padded = np.zeros((len(letters), MOST_LETTERS), np.int16)
        for i, row in enumerate(letters):
            padded[i, : len(row)] = row[:MOST_LETTERS]
        self._letters = torch.from_numpy(padded).to(device)
        self._device = device

    @property
    def hours(self) -> float:
        return len(self._speech) / 24_000 / 3600

    def plan(self, rng: np.random.Generator, n_clips: int, length: int) -> np.ndarray:
        """[5, n_clips] int64, clips of `length` samples: an utterance that is shorter somewhere within, or a part of a
        longer one. Rows: where the utterance begins, its length, its place in the clip, its letters, its number."""
        chosen = rng.integers(len(self._lengths), size=n_clips)
        spare = length - self._lengths[chosen]
        is_whole = spare >= 0
        # Where the utterance begins in the clip: before it, for a part.
        later, earlier = (rng.integers(0, np.maximum(room, 0) + 1) for room in (spare, -spare))
        places = np.where(is_whole, later, -earlier)
        n_letters = np.where(is_whole, self._n_letters[chosen], 0)
        return np.stack([self._starts[chosen], self._lengths[chosen], places, n_letters, chosen])

    def cut(self, plan: Tensor, length: int) -> Clips:
        """What `plan` ([5, B] int64 on the device) says."""
        starts, lengths, places, n_letters, ids = plan
        at = torch.arange(length, device=self._device) - places[:, None]
        is_inside = (at >= 0) & (at < lengths[:, None])
        samples = self._speech[(starts[:, None] + at.clamp_min(0)).clamp_max(len(self._speech) - 1)]
        return Clips(samples.float() / 32768 * is_inside, self._letters[ids].long(), n_letters)

    def draw(self, rng: np.random.Generator, n_clips: int, length: int) -> Clips:
        """A plan, cut."""
        return self.cut(torch.from_numpy(self.plan(rng, n_clips, length)).to(self._device), length)
