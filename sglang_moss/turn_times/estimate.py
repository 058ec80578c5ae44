"""Stretches of sound to turns, all of them together, by dynamic programming.

    stretches   ##  ######  ####   ########  ###     #####
    turns       [S1       ] [S2            ] [S1         ]      every turn takes one or more, in order

What a division costs is the sum of three surprises: how long a turn lasts for its text, how short the pause is in
front of it, and how little its stretches sound like the other turns of its speaker. Voices and tempi are those of the
division before: the first one goes by lengths and pauses alone, and each makes the next one surer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .sound import FRAME_S, Stretches

_LENGTH_SIGMA = 0.3  # of the logarithm of a turn's length over the expected one
_LENGTH_BLUR_S = 0.25  # by which short turns are uncertain besides
_PAUSE_WORTH = 1.0  # for each e-fold of the pause before a turn
_PAUSE_S = (0.03, 0.6)  # a pause that is longer or shorter is worth no more or less
_VOICE_WORTH = 1.5  # for each second of speech and unit of squared distance
_ROUNDS = 5
_TEMPO_PRIOR_S = 4.0  # of speech, that a speaker's tempo is drawn to the common one by
_MOST_STRETCHES = 1_500  # or some for each turn; those about the shortest pauses are joined
_STRETCHES_A_TURN = 10
_MOST_CELLS = 2_000_000  # of one turn's table, so that memory has a bound
_REACH = 3.5  # times its expected length, and a second: no turn is longer


@dataclass(frozen=True)
class ExpectedTurn:
    """What is known of a turn before it is heard."""

    speaker: int | None
    seconds: float  # expected, of any common scale


def divide(stretches: Stretches, turns: Sequence[ExpectedTurn]) -> np.ndarray:
    """Where each turn begins and ends.

    Args:
        stretches: at least one.
        turns: at least one.
    Returns:
        [K, 2] float64 seconds, ascending, no turn empty.
    """
    stretches = _enough(_fewer(stretches, max(_MOST_STRETCHES, _STRETCHES_A_TURN * len(turns))), len(turns))
    if len(stretches) < len(turns):  # less than a frame for each
        edges = np.linspace(0, stretches.n_frames, len(turns) + 1) * FRAME_S
        return np.stack([edges[:-1], edges[1:]], axis=1)
    speakers, numbers = np.unique([-1 if t.speaker is None else t.speaker for t in turns], return_inverse=True)
    expected = np.array([turn.seconds for turn in turns])
    problem = _Problem(stretches, expected, numbers)
    voice = np.zeros((len(speakers), len(stretches) + 1))
    tempo = np.full(len(turns), problem.scale)
    ends = problem.solve(tempo, voice)
    for _ in range(_ROUNDS):
        tempo, voice = problem.tempi(ends), problem.voices(ends, len(speakers))
        before, ends = ends, problem.solve(tempo, voice)
        if np.array_equal(before, ends):
            break
    begins = np.concatenate([[0], ends[:-1]])
    return np.stack([stretches.start[begins], stretches.end[ends - 1]], axis=1) * FRAME_S


class _Problem:
    def __init__(self, stretches: Stretches, expected: np.ndarray, speakers: np.ndarray) -> None:
        self._start, self._end = stretches.start * FRAME_S, stretches.end * FRAME_S
        self._sounding = self._end - self._start
        self._features = stretches.features
        self._expected, self._speakers = expected, speakers
        pauses = np.clip(stretches.pauses, *_PAUSE_S)
        self.border = np.concatenate([[0.0], -_PAUSE_WORTH * np.log(pauses / _PAUSE_S[0])])  # before stretch i
        n_borders = len(expected) - 1
        # Pauses between turns are no part of any.
        typical = np.sort(stretches.pauses)[len(stretches.pauses) - n_borders :].sum() if n_borders else 0.0
        spoken = max(float(self._end[-1] - self._start[0] - typical), 0.3 * float(self._sounding.sum()))
        self.scale = spoken / float(expected.sum())

    def solve(self, tempo: np.ndarray, voice: np.ndarray) -> np.ndarray:
        """[K] stretches before the end of each turn.

        Args:
            tempo: [K] seconds of each turn for one that is expected.
            voice: [speakers, S + 1] cost of the stretches before each, were they the speaker's.
        """
        n, n_turns = len(self._start), len(self._expected)
        wanted = self._expected * tempo
        longest = _REACH * float(wanted.max()) + 1.0
        first = np.searchsorted(self._start, self._end - longest)  # of the longest turn that ends with each stretch
        width = int((np.arange(n) - first).max()) + 1
        width = max(min(width, _MOST_CELLS // n), -(-n // n_turns))
        b = np.arange(width)[None]
        best = np.concatenate([[0.0], np.full(n, np.inf)])
        chosen = np.zeros((n_turns, n + 1), np.int32)
        for k in range(n_turns):
            # [j, b]: turn k of the stretches from i = j - 1 - b up to j, for as many j as leave one for every turn.
            lowest, highest = (n if k == n_turns - 1 else k + 1), n - n_turns + k + 1
            j = np.arange(lowest, highest + 1)[:, None]
            i = j - 1 - b
            inside, i = i >= k, np.maximum(i, 0)
            mine = voice[self._speakers[k]]
            before = best[:-1] + (self.border if k else 0.0)
            lasts = self._end[j - 1] - self._start[i]
            cost = self._surprise(lasts, float(wanted[k])) + (mine[j] - mine[i]) + before[i]
            cost[~inside] = np.inf
            at = np.argmin(cost, axis=1)
            chosen[k, lowest : highest + 1] = j[:, 0] - 1 - at
            best = np.full(n + 1, np.inf)
            best[lowest : highest + 1] = cost[np.arange(len(at)), at]
        ends = np.empty(n_turns, np.int64)
        ends[-1] = n
        for k in range(n_turns - 1, 0, -1):
            ends[k - 1] = chosen[k, ends[k]]
        return ends

    @staticmethod
    def _surprise(lasts: np.ndarray, wanted: float) -> np.ndarray:
        """Cost of turns that last so many seconds."""
        off = np.log((lasts + _LENGTH_BLUR_S) / (wanted + _LENGTH_BLUR_S))
        return off**2 / (2 * _LENGTH_SIGMA**2)

    def length_cost(self, n_frames: int, wanted: float) -> float:
        """Cost of one turn of so many frames, where so many seconds are expected."""
        return float(self._surprise(np.array([n_frames * FRAME_S]), wanted)[0])

    def tempi(self, ends: np.ndarray) -> np.ndarray:
        """[K]: how slowly each turn's speaker spoke in this division."""
        begins = np.concatenate([[0], ends[:-1]])
        lasted = self._end[ends - 1] - self._start[begins]
        common = lasted.sum() / self._expected.sum()
        tempo = np.empty(len(ends))
        for speaker in np.unique(self._speakers):
            mine = self._speakers == speaker
            expected = self._expected[mine].sum() * common
            tempo[mine] = common * (lasted[mine].sum() + _TEMPO_PRIOR_S) / (expected + _TEMPO_PRIOR_S)
        return tempo

    def voices(self, ends: np.ndarray, n_speakers: int) -> np.ndarray:
        """As `solve` takes them: distance of every stretch to each speaker's mean in this division."""
        n = len(self._start)
        if n_speakers == 1:
            return np.zeros((1, n + 1))
        owner = self._speakers[np.searchsorted(ends, np.arange(n), side="right")]
        known = np.isfinite(self._features)
        x = np.where(known, self._features, 0.0)
        weight = known * self._sounding[:, None]
        means = np.zeros((n_speakers, x.shape[1]))
        common = (weight * x).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-9)
        for speaker in range(n_speakers):
            mine = weight * (owner == speaker)[:, None]
            means[speaker] = ((mine * x).sum(axis=0) + 0.5 * common) / (mine.sum(axis=0) + 0.5)
        spread = (weight * (x - means[owner]) ** 2).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-9) + 1e-3
        distance = (known[None] * (x[None] - means[:, None]) ** 2 / spread).mean(axis=2)  # [speakers, S]
        cost = _VOICE_WORTH * np.minimum(self._sounding, 3.0) * (distance - distance.min(axis=0))
        return np.concatenate([np.zeros((n_speakers, 1)), np.cumsum(cost, axis=1)], axis=1)


def _fewer(stretches: Stretches, n_most: int) -> Stretches:
    """At most so many stretches."""
    if len(stretches) <= n_most:
        return stretches
    kept = 1 + np.sort(np.argsort(-stretches.pauses, kind="stable")[: n_most - 1])
    first = np.concatenate([[0], kept])
    weight = np.isfinite(stretches.features) * (stretches.end - stretches.start)[:, None]
    total = np.add.reduceat(weight, first)
    with np.errstate(invalid="ignore"):
        features = np.add.reduceat(np.where(weight > 0, stretches.features, 0.0) * weight, first) / total
    ends = np.concatenate([kept, [len(stretches)]]) - 1
    return Stretches(stretches.start[first], stretches.end[ends], features, stretches.n_frames)


def _enough(stretches: Stretches, n_turns: int) -> Stretches:
    """At least as many stretches as turns, where there are frames for it: the longest are halved."""
    start, end, features = stretches.start, stretches.end, stretches.features
    while len(start) < n_turns:
        longest = int(np.argmax(end - start))
        middle = (start[longest] + end[longest]) // 2
        if middle == start[longest]:
            break
        start, end = np.insert(start, longest + 1, middle), np.insert(end, longest, middle)
        features = np.insert(features, longest, features[longest], axis=0)
    return Stretches(start, end, features, stretches.n_frames)
