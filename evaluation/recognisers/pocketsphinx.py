"""CMU PocketSphinx with the American English model in its wheel: modest, but always there.

A clip is brought to one loudness and cut at its pauses: the language model is one of single sentences, and on dialogues
heard as a whole it makes about twice the errors.
"""

import math
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np

from ..clips import RATE, pauses_in
from ..errors import CannotJudge, load
from ..spoken_words import INSTALL
from . import Heard, Word

_PAUSE_S = 0.2
_SHORTEST_S, _LONGEST_S = 1.5, 20.0
_LEVEL = 0.08  # rms of the samples that are not silent
_PEAK = 0.98
_VARIANT = "("  # "the(2)" is the second pronunciation of "the"


class PocketSphinx:
    """The recogniser `pocketsphinx`; English only."""

    languages = frozenset({"en"})

    def __init__(self, model: str | None, device: str) -> None:
        if model is not None:
            raise CannotJudge("pocketsphinx has its model in its package: leave --recogniser-model out")
        del device  # a CPU is all that it knows
        package = load("pocketsphinx", "the recogniser pocketsphinx", INSTALL)
        self._decoder: Any = package.Decoder(samprate=RATE, loglevel="FATAL")
        self.versions = {"pocketsphinx": version("pocketsphinx")}

    def hear(self, samples: np.ndarray, language: str) -> Heard:
        if language not in self.languages:
            raise CannotJudge(f"pocketsphinx hears English only, not {language!r}; choose another --recogniser")
        self._decoder.reinit_feat()  # it adapts to what it hears: an answer is to be its clip's alone
        pcm = (at_one_level(samples) * 32767).astype("<i2")
        words = [
            word for begin, end in pieces(samples) for word in _decode(self._decoder, pcm[begin:end], begin / RATE)
        ]
        return Heard(" ".join(word.text for word in words), words)


def _decode(decoder: Any, pcm: np.ndarray, offset_s: float) -> list[Word]:
    frame_s = 1 / decoder.config["frate"]
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    return [
        Word(
            segment.word.partition(_VARIANT)[0],
            offset_s + segment.start_frame * frame_s,
            offset_s + (segment.end_frame + 1) * frame_s,
        )
        for segment in decoder.seg() or ()
        if segment.word[0] not in "<["  # silence and noises
    ]


def at_one_level(samples: np.ndarray) -> np.ndarray:
    """[L] float32 with its louder half at one rms, no peak beyond full scale."""
    loud = samples[np.abs(samples) > 0.1 * max(float(np.abs(samples).max()), 1e-9)]
    gain = _LEVEL / max(float(np.sqrt(np.mean(loud**2))) if len(loud) else 0.0, 1e-6)
    return samples * min(gain, _PEAK / max(float(np.abs(samples).max()), 1e-9))


def pieces(samples: np.ndarray) -> list[tuple[int, int]]:
    """Cuts a clip at its pauses, into pieces of 1.5 to 20 s where it has pauses for it.

    Returns:
        (begin, end) in samples, one after the other without a gap, at least one.
    """
    end_s = len(samples) / RATE
    cuts = [0.0]
    for pause in pauses_in(samples, _PAUSE_S):
        if pause.middle_s - cuts[-1] >= _SHORTEST_S and end_s - pause.middle_s >= _SHORTEST_S:
            cuts += _without_pause(cuts[-1], pause.middle_s)
            cuts.append(pause.middle_s)
    cuts += _without_pause(cuts[-1], end_s)
    edges = [*(round(cut * RATE) for cut in cuts), len(samples)]
    return list(pairwise(edges))


def _without_pause(begin_s: float, end_s: float) -> list[float]:
    """Where a stretch that is too long is cut nevertheless."""
    n = max(1, math.ceil((end_s - begin_s) / _LONGEST_S))
    return [begin_s + k * (end_s - begin_s) / n for k in range(1, n)]
