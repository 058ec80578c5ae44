"""Times of the turns of a speech in parts: each part is timed by itself, and follows those before it.

script   [S1] a ... b [S2] c          turns that are told
parts    [S1] a  |  [S1] b [S2] c     as they were spoken: a turn that no part could hold was cut
speech   ########################     parts overlap where one fades into the next
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from sglang_moss.request.turns import Turn, turns_of
from sglang_moss.turn_times.timing import told, told_turns

_BLANK = re.compile(r"\s+")


class TurnClock:
    """Takes part after part while the next one is made.

    Args:
        turns: of the script.
        sample_rate: in Hz.
        speed: that the speech will be stretched by.
    """

    def __init__(self, turns: Sequence[Turn], sample_rate: int, speed: float) -> None:
        self._turns = turns
        self._sample_rate = sample_rate
        self._speed = speed
        self._n_samples = 0  # of the parts so far, joined
        self._parts: list[_Part] = []

    def take_part(self, script: str, spoken: Sequence[np.ndarray], n_overlap: int, *, is_cut: bool) -> None:
        """The next part, all of it.

        Args:
            script: of the part.
            spoken: its samples, int16.
            n_overlap: samples that the part after it shares with it.
            is_cut: it ends before its script.
        """
        turns, n_spoken, task = turns_of(script), sum(map(len, spoken)), None
        if n_spoken:
            work = told_turns(lambda: np.concatenate(spoken), self._sample_rate, turns, is_cut=is_cut)
            task = asyncio.create_task(work)
        self._parts.append(_Part(turns, self._n_samples / self._sample_rate, task))
        self._n_samples += max(0, n_spoken - n_overlap)

    async def turns(self) -> list[dict[str, Any]]:
        """Those that were reached, in the times of what is heard."""
        pieces: list[_Piece] = []
        for part in self._parts:
            times = [] if part.task is None else [(t["start"], t["end"]) for t in await part.task]
            for turn, span in zip_longest(part.turns, times):
                heard = None if span is None else (part.begin_s + span[0], part.begin_s + span[1])
                pieces.append(_Piece(_n_letters(turn.words), heard))
        return [told(turn, a / self._speed, b / self._speed) for turn, a, b in _joined(self._turns, pieces)]


@dataclass(frozen=True)
class _Part:
    turns: list[Turn]
    begin_s: float
    task: asyncio.Task[list[dict[str, Any]]] | None  # None: nothing was heard


@dataclass(frozen=True)
class _Piece:
    """A turn of a part: a turn of the script, or some of one."""

    n_letters: int
    span_s: tuple[float, float] | None


def _joined(turns: Sequence[Turn], pieces: Sequence[_Piece]) -> Iterator[tuple[Turn, float, float]]:
    """Turns, each from where its first piece is heard to where its last one ends."""
    rest = iter(pieces)
    for turn in turns:
        n_letters, spans = _n_letters(turn.words), []
        while n_letters > 0 and (piece := next(rest, None)) is not None:
            n_letters -= piece.n_letters
            if piece.span_s is not None:
                spans.append(piece.span_s)
        if spans:
            yield turn, spans[0][0], spans[-1][1]


def _n_letters(words: str) -> int:
    return len(_BLANK.sub("", words))
