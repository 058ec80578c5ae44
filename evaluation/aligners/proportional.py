"""Borders where the text would have them, if everybody spoke at one speed, moved to pauses.

A turn takes that share of the speech, pauses not counted, which its text has of the script. Each border goes to a
pause near its place, the longer the likelier; all of them are chosen together, so that they keep their order.
"""

from collections.abc import Sequence

import numpy as np

from sglang_moss.request.turns import Turn, speech_seconds

from ..clips import RATE, pauses_in, silent_frames, sounding
from ..recognisers import Heard

_TOLERANCE_S = 0.6  # of speech: a border this far from its place costs 1
_PAUSE_WORTH = 1.0  # what a pause ten times as long is worth
_SHORTEST_S = 0.05
_NO_PAUSE_COST = 2.0  # of a border in the middle of speech


class Proportional:
    """The aligner `proportional`."""

    def __init__(self, model: str | None, device: str) -> None:
        del model, device
        self.versions: dict[str, str] = {}

    def borders(self, samples: np.ndarray, turns: Sequence[Turn], language: str, heard: Heard) -> list[float]:
        del language, heard
        return proportional_borders(samples, [speech_seconds(turn.words) for turn in turns])


def proportional_borders(samples: np.ndarray, lengths: Sequence[float]) -> list[float]:
    """Borders between turns of these expected lengths; see `Aligner.borders`."""
    spoken_s = np.concatenate([[0.0], np.cumsum(~silent_frames(samples)) * 0.01])  # speech before each frame
    wanted = np.cumsum(lengths)[:-1] / np.sum(lengths) * spoken_s[-1]
    sound = sounding(samples)
    pauses = [p for p in pauses_in(samples, _SHORTEST_S) if sound.start_s < p.middle_s < sound.end_s]
    places = [(p.middle_s, -_PAUSE_WORTH * float(np.log10(p.seconds / _SHORTEST_S))) for p in pauses]
    # A border may also stand where the text has it: the only choice where nobody pauses.
    places += [(float(np.searchsorted(spoken_s, w)) * 0.01, _NO_PAUSE_COST) for w in wanted]
    places.sort()
    times = np.array([time for time, _ in places])
    worth = np.array([cost for _, cost in places])
    at = spoken_s[np.minimum((times * RATE / (RATE // 100)).astype(int), len(spoken_s) - 1)]
    cost = ((at[None] - wanted[:, None]) / _TOLERANCE_S) ** 2 + worth[None]  # [borders, places]
    return [float(times[i]) for i in cheapest_in_order(cost)]


def cheapest_in_order(cost: np.ndarray) -> list[int]:
    """A column for each row, strictly ascending, with the least sum; [rows, columns], no more rows than columns."""
    n_rows, n_columns = cost.shape
    best = np.full((n_rows, n_columns), np.inf)
    best[0] = cost[0]
    for row in range(1, n_rows):
        before = np.minimum.accumulate(best[row - 1])
        best[row, 1:] = cost[row, 1:] + before[:-1]
    chosen, limit = [], n_columns
    for row in range(n_rows - 1, -1, -1):
        limit = int(np.argmin(best[row, :limit]))
        chosen.append(limit)
    return chosen[::-1]
