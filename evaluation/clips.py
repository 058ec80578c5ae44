"""Sound files as the judge hears them, and where there is silence in them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sglang_moss.audio.loading import ReferenceLimits, load_audio
from sglang_moss.audio.preparation import to_mono
from sglang_moss.errors import BadReference

from .errors import CannotJudge

RATE = 16_000  # Hz: of every back end
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
_HOURS = 4
_LIMITS = ReferenceLimits(
    max_bytes=4_000_000_000, max_seconds=_HOURS * 3600, max_values=_HOURS * 3600 * 48_000, max_peak=1e6
)
FRAME = RATE // 100  # 10 ms
_BELOW_SPEECH_DB = 32.0  # what is this far below the loud parts is silence
_FLOOR_DBFS = -65.0  # and what is below this, whatever the speech is like


@dataclass(frozen=True)
class Span:
    """A stretch of a clip, in seconds."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    @property
    def middle_s(self) -> float:
        return (self.start_s + self.end_s) / 2

    def of(self, samples: np.ndarray) -> np.ndarray:
        """The samples of this stretch of [L] at `RATE`."""
        return samples[max(0, round(self.start_s * RATE)) : max(0, round(self.end_s * RATE))]


def read_clip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A clip for back ends, and as it is.

    Returns:
        [L] float32 mono at `RATE`, full scale 1; and [N] float32 mono at its own rate, for what resampling would hide.
    Raises:
        CannotJudge: it is no audio, or silent.
        OSError: it cannot be read.
    """
    try:
        samples, rate = load_audio(path.read_bytes(), _LIMITS, 0)
    except BadReference as error:
        raise CannotJudge(f"{path.name}: {error.problem or error}") from None
    return to_mono(samples, rate, RATE), samples.mean(axis=1).astype(np.float32)


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """[ceil(L / FRAME)] float64 dBFS (rms) of 10 ms each; -120 for digital silence."""
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    return 10 * np.log10(np.maximum(np.mean(padded**2, axis=1), 1e-12))


def speech_level(levels: np.ndarray) -> float:
    """dBFS of the loud parts, which are the vowels."""
    return float(np.percentile(levels, 95))


def silent_frames(samples: np.ndarray) -> np.ndarray:
    """[frames] bool: where nobody speaks."""
    levels = frame_levels(samples)
    return levels < max(speech_level(levels) - _BELOW_SPEECH_DB, _FLOOR_DBFS)


def pauses_in(samples: np.ndarray, least_s: float = 0.06) -> list[Span]:
    """Stretches of silence of at least `least_s`, in order; also those at the ends."""
    silent = np.concatenate([[False], silent_frames(samples), [False]])
    edges = np.flatnonzero(silent[1:] != silent[:-1]).reshape(-1, 2) * FRAME / RATE
    return [Span(float(a), float(b)) for a, b in edges if b - a >= least_s]


def sounding(samples: np.ndarray) -> Span:
    """From the first sound to the last; empty where there is none."""
    loud = np.flatnonzero(~silent_frames(samples))
    if not len(loud):
        return Span(0.0, 0.0)
    return Span(float(loud[0] * FRAME / RATE), float(min((loud[-1] + 1) * FRAME, len(samples)) / RATE))
