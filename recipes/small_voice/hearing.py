"""What a recogniser hears: words, and errors among them; pocketsphinx with the US-English model of its wheel."""

import multiprocessing
import os
from collections.abc import Sequence

import numpy as np
from scipy.signal import resample_poly

from .sentences import bare

_decoder = None


def hear(samples: np.ndarray) -> str:
    """Words in [L] int16 at 24 kHz, '' where there are none."""
    global _decoder
    if _decoder is None:
        from pocketsphinx import Decoder

        _decoder = Decoder(samprate=16_000, loglevel="FATAL")
    level = max(float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))), 1.0)
    wave = resample_poly(samples * (3000 / level), 2, 3)
    wave = np.pad(wave, 3200)
    _decoder.start_utt()
    _decoder.process_raw(np.clip(wave, -32768, 32767).astype(np.int16).tobytes(), False, True)
    _decoder.end_utt()
    hypothesis = _decoder.hyp()
    return hypothesis.hypstr if hypothesis is not None else ""


def hear_all(clips: Sequence[np.ndarray], n_processes: int | None = None) -> list[str]:
    """`hear` for each, on all cores."""
    with multiprocessing.get_context("spawn").Pool(n_processes or min(len(clips), os.cpu_count() or 1)) as pool:
        return pool.map(hear, clips, chunksize=1)


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """Errors (substitutions, insertions, deletions) and words said."""
    a, b = bare(said).split(), bare(heard).split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1], len(a)


def error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """Word error rate over all clips together."""
    errors, words = np.sum([word_errors(a, b) for a, b in zip(said, heard, strict=True)], axis=0)
    return float(errors) / max(int(words), 1)
