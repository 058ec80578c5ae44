"""References to codes, a window at a time, so that streams are decoded between any two windows.

    clip     |--window--|--window--|--window--|rest|     each continues where the slot of its clip stands
    a step   one window of every clip that has a slot

A clip holds a slot of the encoder's state from its first window to its last. Slots go to whoever came first, but the
last free one only to a clip that is soon done: one that is not must not make short ones wait for its whole length.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

logger = logging.getLogger(__name__)

_SOON_DONE_WINDOWS = 4  # at the real shape 20 s, with fp16x3 40

Send = Callable[[Hashable, list[np.ndarray] | None], None]


class Runner(Protocol):
    """What encodes; `codec.encoder_runner.EncoderRunner`."""

    n_slots: int
    window_frames: int
    frame_samples: int

    def encode(self, windows: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray]: ...

    def reset(self, slot: int) -> None: ...


@dataclass(eq=False)
class _Clip:
    """One waveform of a job."""

    job: Hashable
    waveform: np.ndarray  # [L] float32
    n_frames: int
    slot: int | None = None
    alone: bool = False  # encoded by itself, after a step that failed
    n_encoded: int = 0
    codes: list[np.ndarray] = field(default_factory=list)  # of its windows


class ClipEncoder:
    """All jobs over one encoder. Not thread-safe: one thread owns it.

    Args:
        spare_slot: keep the last free slot for short clips, as somebody may be waiting for one.
    """

    def __init__(self, runner: Runner, *, spare_slot: bool = True) -> None:
        self._runner = runner
        self._n_spare = int(spare_slot and runner.n_slots > 1)
        self._free_slots = list(range(runner.n_slots))
        self._jobs: dict[Hashable, list[_Clip]] = {}
        self._waiting: deque[_Clip] = deque()
        self._seated: deque[_Clip] = deque()

    @property
    def n_jobs(self) -> int:
        """Jobs that are not done."""
        return len(self._jobs)

    def open(self, job: Hashable, waveforms: Sequence[np.ndarray]) -> None:
        """Take on a job: [L] float32 waveforms, any lengths; a last partial frame of each is left out."""
        clips = [_Clip(job, waveform, len(waveform) // self._runner.frame_samples) for waveform in waveforms]
        self._jobs[job] = clips
        self._waiting.extend(clip for clip in clips if clip.n_frames)

    def drop(self, job: Hashable) -> None:
        """Forget a job that nobody waits for; unknown ones are no error."""
        for clip in self._jobs.pop(job, ()):
            self._unseat(clip)
            if clip in self._waiting:
                self._waiting.remove(clip)

    def step(self, send: Send) -> bool:
        """Encode one window of some clips; False: no job is left.

        Args:
            send: is given a job's codes, [T, n_vq] int16 for each waveform, or None if it failed by itself.
        """
        self._seat()
        batch = self._next_batch()
        if batch:
            self._encode(batch, send)
        for job, clips in list(self._jobs.items()):
            if all(clip.n_encoded == clip.n_frames for clip in clips):
                del self._jobs[job]
                send(job, [self._codes(clip) for clip in clips])
        return bool(self._jobs)

    def _seat(self) -> None:
        """Give free slots to clips that wait."""
        for clip in list(self._waiting) if self._free_slots else ():
            soon_done = clip.n_frames <= _SOON_DONE_WINDOWS * self._runner.window_frames
            if len(self._free_slots) > (0 if soon_done else self._n_spare):
                self._waiting.remove(clip)
                clip.slot = self._free_slots.pop()
                self._runner.reset(clip.slot)
                self._seated.append(clip)

    def _next_batch(self) -> list[_Clip]:
        """Whose turn it is: one that is alone, or all others."""
        if self._seated and self._seated[0].alone:
            return [self._seated[0]]
        return [clip for clip in self._seated if not clip.alone]

    def _encode(self, batch: list[_Clip], send: Send) -> None:
        windows = [self._window(clip) for clip in batch]
        self._seated.rotate(-1)
        try:
            encoded = self._runner.encode(windows, [clip.slot for clip in batch if clip.slot is not None])
        except Exception:
            logger.exception("encoding a window of %d clips failed", len(batch))
            for clip in batch:
                self._try_alone(clip, send)
            return
        for clip, codes in zip(batch, encoded, strict=True):
            clip.codes.append(codes)
            clip.n_encoded += len(codes)
            if clip.n_encoded == clip.n_frames:
                self._unseat(clip)

    def _try_alone(self, clip: _Clip, send: Send) -> None:
        """After a step that failed: from the beginning and by itself, once; a fault must not cost another's work."""
        self._unseat(clip)
        if clip.alone:
            if clip.job in self._jobs:  # else another clip of it has failed already
                self.drop(clip.job)
                send(clip.job, None)
            return
        clip.alone = True
        clip.n_encoded = 0
        clip.codes.clear()
        self._waiting.append(clip)

    def _unseat(self, clip: _Clip) -> None:
        if clip.slot is not None:
            self._seated.remove(clip)
            self._free_slots.append(clip.slot)
            clip.slot = None

    def _window(self, clip: _Clip) -> np.ndarray:
        n_frames = min(self._runner.window_frames, clip.n_frames - clip.n_encoded)
        start, size = clip.n_encoded * self._runner.frame_samples, n_frames * self._runner.frame_samples
        return clip.waveform[start : start + size]

    def _codes(self, clip: _Clip) -> np.ndarray:
        return np.concatenate(clip.codes) if clip.codes else np.empty((0, 0), np.int16)
