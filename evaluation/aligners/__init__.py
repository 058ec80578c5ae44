"""Aligners by name: which stretch of a clip belongs to which turn of its script.

| name | how | weights |
| --- | --- | --- |
| `words` | by the times of the words that the recogniser heard | none of its own |
| `proportional` | by length of text, at pauses | none |
| `mms` | torchaudio's forced alignment, as the published evaluation | MMS, downloaded |
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from sglang_moss.request.turns import Turn

from ..clips import RATE, Span, sounding
from ..recognisers import Heard, load_by_name

_CLASSES = {
    "words": ".words:Words",
    "proportional": ".proportional:Proportional",
    "mms": ".mms:ForcedAlignment",
}
NAMES = tuple(_CLASSES)


class Aligner(Protocol):
    """One back end."""

    versions: dict[str, str]

    def borders(self, samples: np.ndarray, turns: Sequence[Turn], language: str, heard: Heard) -> list[float]:
        """Where one turn ends and the next begins, in seconds: one border fewer than turns, ascending.

        Args:
            samples: [L] float32 at `clips.RATE`.
            turns: at least two.
        """
        ...


def load_aligner(name: str, device: str) -> Aligner:
    """See `recognisers.load_recogniser`."""
    return load_by_name(_CLASSES, "aligner", name, None, device, __name__)


def spans_of(aligner: Aligner, samples: np.ndarray, turns: Sequence[Turn], language: str, heard: Heard) -> list[Span]:
    """The stretch of each turn, without the silence at its ends."""
    borders = aligner.borders(samples, turns, language, heard) if len(turns) > 1 else []
    edges = [0.0, *borders, len(samples) / RATE]
    spans = []
    for begin_s, end_s in pairwise(edges):
        inside = sounding(samples[round(begin_s * RATE) : round(end_s * RATE)]) if end_s > begin_s else Span(0, 0)
        spans.append(Span(begin_s + inside.start_s, begin_s + inside.end_s))
    return spans
