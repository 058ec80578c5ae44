"""The four voices: a text to an utterance as the training data hold it.

    synthesiser -> 24 kHz -> ends trimmed -> -20 dBFS -> a pause before and after -> whole frames

The level is the one that the server brings references to.
"""

import os
import random
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from .flite import Flite

RATE = 24_000
FRAME = 1920
SHARES = {"heart": 0.34, "rms": 0.24, "slt": 0.21, "awb": 0.21}  # of the training speech
NAMES = tuple(SHARES)
FLITE_LIBRARIES = Path(os.environ.get("FLITE_LIBRARIES", "/usr/lib/x86_64-linux-gnu"))
_LEVEL = 10 ** (-20 / 20)
_PEAK = 0.97
_QUIET = 10 ** (-42 / 20)  # below the loudest 10 ms: no speech
_BLOCK = RATE // 100
_BEFORE_S, _AFTER_S = (0.04, 0.15), (0.10, 0.40)


class Voices:
    """All four, each made when it is first needed."""

    def __init__(self) -> None:
        self._made: dict = {}

    def speak(self, voice: str, text: str, seed: int) -> np.ndarray:
        """An utterance.

        Args:
            voice: of `NAMES`.
            text: ASCII.
            seed: of hibari's noise and of the pauses.
        Returns:
            [L] int16 at 24 kHz, L a multiple of `FRAME`.
        """
        rng = random.Random(f"{voice} {seed}")
        samples = _at_level(_trimmed(self._raw(voice, text, seed)))
        before, after = (int(rng.uniform(*span) * RATE) for span in (_BEFORE_S, _AFTER_S))
        total = -(-(before + len(samples) + after) // FRAME) * FRAME
        padded = np.zeros(total, np.float32)
        padded[before : before + len(samples)] = samples
        return np.round(padded * 32767).astype(np.int16)

    def _raw(self, voice: str, text: str, seed: int) -> np.ndarray:
        if voice == "heart":
            if voice not in self._made:
                from hibari import Hibari

                self._made[voice] = Hibari()
            return self._made[voice](text, seed=seed)
        if voice not in self._made:
            self._made[voice] = Flite(voice, FLITE_LIBRARIES)
        samples, rate = self._made[voice](text)
        assert rate == 16_000, f"{voice} speaks at {rate} Hz, expected 16000"
        return resample_poly(samples, 3, 2).astype(np.float32)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence at both ends, but for 20 ms."""
    n_blocks = len(samples) // _BLOCK
    if n_blocks == 0:
        return samples
    levels = np.sqrt((samples[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK) ** 2).mean(1))
    loud = np.flatnonzero(levels > levels.max() * _QUIET)
    return samples[max(0, loud[0] - 2) * _BLOCK : (loud[-1] + 3) * _BLOCK]


def _at_level(samples: np.ndarray) -> np.ndarray:
    gain = _LEVEL / max(float(np.sqrt((samples**2).mean())), 1e-6)
    return samples * min(gain, _PEAK / max(float(np.abs(samples).max()), 1e-6))
