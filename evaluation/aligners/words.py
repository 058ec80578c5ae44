"""Borders by what was heard: words of the script are found again in the recogniser's answer, with their times.

    script   ... did you hear that | no what was it ...
    heard    ... did you hear cat  | no what was ....
                              1.9 s  2.3 s             the border is the pause between

A border lies between the last word of a turn that was found and the first of the next one. Where words are missing in
between, text by length says where to look. A recogniser that gives no times leaves all of it to `proportional`.
"""

from collections.abc import Sequence

import numpy as np

from sglang_moss.request.turns import Turn, speech_seconds

from ..clips import RATE, Span, pauses_in
from ..error_rates import pieces_of
from ..recognisers import Heard
from ..spoken_words import tokens_of
from .proportional import proportional_borders

_MARGIN_S = 0.05  # a recogniser's times are that uncertain
_FAR = 4.0  # seconds off the expected place that make up for a pause a second longer, inverted


class Words:
    """The aligner `words`."""

    def __init__(self, model: str | None, device: str) -> None:
        del model, device
        self.versions: dict[str, str] = {}

    def borders(self, samples: np.ndarray, turns: Sequence[Turn], language: str, heard: Heard) -> list[float]:
        lengths = [speech_seconds(turn.words) for turn in turns]
        found = found_spans(turns, language, heard)
        if not any(found):
            return proportional_borders(samples, lengths)
        pauses = pauses_in(samples)
        borders: list[float] = []
        for k in range(1, len(turns)):
            before = [span for span in found[:k] if span]
            after = [span for span in found[k:] if span]
            low = max([*borders[-1:], before[-1].end_s - _MARGIN_S if before else 0.0])
            high = max(low, after[0].start_s + _MARGIN_S if after else len(samples) / RATE)
            # Turns of which no word was found share the stretch between those that were.
            n_before = next((n for n in range(k) if found[k - 1 - n]), k)
            n_after = next((n for n in range(len(turns) - k) if found[k + n]), len(turns) - k)
            left, right = sum(lengths[k - n_before : k]), sum(lengths[k : k + n_after])
            place = low + (high - low) * (left / (left + right) if left + right else 0.5)
            borders.append(_at_pause(place, low, high, pauses))
        return borders


def found_spans(turns: Sequence[Turn], language: str, heard: Heard) -> list[Span | None]:
    """From the first to the last word of each turn that was heard in its place; None where none was."""
    said = [(token, k) for k, turn in enumerate(turns) for token in tokens_of(turn.words, language)]
    answer = [(token, word) for word in heard.words for token in tokens_of(word.text, language)]
    spans: list[Span | None] = [None] * len(turns)
    for piece in pieces_of([token for token, _ in said], [token for token, _ in answer]):
        if piece.kind != "equal":
            continue
        for i, j in zip(range(*piece.said), range(*piece.heard), strict=True):
            turn, word = said[i][1], answer[j][1]
            span = spans[turn]
            spans[turn] = Span(span.start_s if span else word.start_s, word.end_s)
    return spans


def _at_pause(place: float, low: float, high: float, pauses: Sequence[Span]) -> float:
    """The middle of a long pause near `place` in [low, high]; `place` itself where there is none."""
    within = [p for p in pauses if low <= p.middle_s <= high]
    if not within:
        return place
    return max(within, key=lambda p: p.seconds - abs(p.middle_s - place) / _FAR).middle_s
