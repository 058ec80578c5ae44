"""The times of a script's turns in its speech, as answers tell them."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np

from sglang_moss.request.turns import TURN_SECONDS, Turn, speech_seconds

from .estimate import ExpectedTurn, divide
from .sound import stretches_of

_SHORTEST_S = 0.15
_THREADS = 1  # a second of speech takes some milliseconds, and nobody waits for them but its own request
_pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="moss-turn-times")


def turn_times(pcm: np.ndarray, sample_rate: int, turns: Sequence[Turn], *, is_cut: bool = False) -> np.ndarray:
    """Estimate where each turn begins and ends.

    Args:
        pcm: [L] int16, the speech of these turns.
        sample_rate: of `pcm`, in Hz.
        turns: what is said in it, at least one.
        is_cut: the speech ends before the script does; how far it came is told by the rule of thumb for its tempo.
    Returns:
        [K, 2] float64 seconds, ascending; of a speech that is cut, of the turns that were reached.
    """
    expected = expected_turns(turns)
    stretches = stretches_of(pcm, sample_rate)
    if is_cut:
        spoken = len(stretches) and float(stretches.end[-1] - stretches.start[0]) / 100
        expected = _reached(expected, spoken or len(pcm) / sample_rate)
    if not len(stretches):
        return by_length(expected, 0.0, len(pcm) / sample_rate)
    return divide(stretches, expected)


def expected_turns(turns: Sequence[Turn]) -> list[ExpectedTurn]:
    """How long they should sound, without the pause between two."""
    return [ExpectedTurn(turn.speaker, max(_SHORTEST_S, speech_seconds(turn.words) - TURN_SECONDS)) for turn in turns]


def by_length(expected: Sequence[ExpectedTurn], begin_s: float, end_s: float) -> np.ndarray:
    """[K, 2] seconds: all of the time between two, divided by how long each should sound."""
    lengths = np.cumsum([0.0, *(turn.seconds for turn in expected)])
    edges = begin_s + lengths / lengths[-1] * (end_s - begin_s)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _reached(expected: list[ExpectedTurn], spoken_s: float) -> list[ExpectedTurn]:
    """The turns that so much speech has room for; the last of them as far as it was spoken."""
    left = spoken_s
    for k, turn in enumerate(expected):
        if left <= turn.seconds:
            return [*expected[:k], ExpectedTurn(turn.speaker, max(_SHORTEST_S, left))]
        left -= turn.seconds + TURN_SECONDS
    return expected


async def told_turns(
    speech: Callable[[], np.ndarray],
    sample_rate: int,
    turns: Sequence[Turn],
    *,
    is_cut: bool = False,
    pool: Executor = _pool,
) -> list[dict[str, Any]]:
    """`turns` of an answer; see `turn_times`. A thread of `pool` makes the samples of what was sent, and times."""

    def work() -> np.ndarray:
        return turn_times(speech(), sample_rate, turns, is_cut=is_cut)

    times = await asyncio.get_running_loop().run_in_executor(pool, work)
    return [told(turn, start, end) for turn, (start, end) in zip(turns, times.tolist(), strict=False)]


def told(turn: Turn, start_s: float, end_s: float) -> dict[str, Any]:
    """One of them: its speaker as tags name it (None: words before any tag), seconds, and its words."""
    speaker = None if turn.speaker is None else f"S{turn.speaker}"
    return {"speaker": speaker, "start": round(start_s, 2), "end": round(end_s, 2), "text": turn.words}
