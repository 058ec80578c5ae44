"""What listeners are promised, and whether streams that were listened to keep it: the figures of one load.

- A stream counts if it was asked for in the measured window. It is late if its first audio came later than promised,
  and broken if its listener had to wait in the middle, it failed, or its audio is not what was asked for. One that is
  still under way when the load is taken away is judged by what there was until then.
- `listeners`: how many listened at once, in the mean over the window, from the first audio of each to its last.
- `audio_s_per_s`: audio that came in the window, over its length; listeners read at the speed of playback, so that it
  is near `listeners` where nobody waits.
- Where streams tell the way of their first sound: `parts_ms_p50` of those with known voices, `new_voice_parts_ms_p50`,
  and `slowest_parts_ms_mean`, of the tenth of all that was heard last, which is what a p95 is made of.
- Of a load that was taken away early, first sounds are those that had come by then.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...clients import UnusableAnswer
from ..loads.first_sound_parts import each_part, parts_ms
from ..loads.statistics import percentiles
from .listener import Stream


@dataclass(frozen=True)
class Promise:
    """Of the streams that are asked for, at least these shares."""

    first_audio_ms: float = 500.0
    first_audio_share: float = 0.95
    gapless_share: float = 0.99


@dataclass(frozen=True)
class Window:
    """Seconds of one load: before what counts is asked for, while it is, and after."""

    warm_up_s: float
    window_s: float
    tail_s: float

    @property
    def end_s(self) -> float:
        return self.warm_up_s + self.window_s

    @property
    def all_s(self) -> float:
        return self.end_s + self.tail_s


@dataclass(frozen=True)
class Heard:
    """What came of one load.

    Attributes:
        streams: all of it, in order.
        n_due: how many streams are to be asked for in the window.
        began_s: when the load began, on the listeners' clock.
        ended_s: when it was taken away.
        problems: by the number of a stream, what is wrong with its audio.
        new_voice: numbers of streams whose voices the server did not know.
        lags_s: by how much each stream was asked for later than it was due.
    """

    streams: Sequence[Stream]
    n_due: int
    window: Window
    began_s: float
    ended_s: float
    problems: Mapping[int, str]
    new_voice: frozenset[int]
    lags_s: Sequence[float]

    @property
    def bounds(self) -> tuple[float, float]:
        """The window on the listeners' clock."""
        return self.began_s + self.window.warm_up_s, self.began_s + self.window.end_s

    def counted(self) -> list[Stream]:
        return [stream for stream in self.streams if in_window(stream, self.began_s, self.window)]


def in_window(stream: Stream, began_s: float, window: Window) -> bool:
    return window.warm_up_s <= stream.asked_s - began_s < window.end_s


def is_late(stream: Stream, promise: Promise, now: float) -> bool:
    """Whether its first audio came later than promised, or will."""
    failed_early = stream.error is not None and not stream.arrivals_s
    return failed_early or 1e3 * stream.first_audio(now) > promise.first_audio_ms


def is_broken(stream: Stream, now: float) -> bool:
    """Whether its listener has waited in the middle of it, or will not hear its end."""
    return stream.error is not None or stream.wait(now) > 0


def is_lost(streams: Sequence[Stream], n_due: int, promise: Promise, now: float) -> bool:
    """Whether the promise cannot be kept any more, whatever becomes of the streams that are still to come."""
    n_late = sum(is_late(stream, promise, now) for stream in streams)
    n_broken = sum(is_broken(stream, now) for stream in streams)
    most_late, most_broken = (1 - promise.first_audio_share) * n_due, (1 - promise.gapless_share) * n_due
    return n_late > most_late + 1e-9 or n_broken > most_broken + 1e-9


def figures(heard: Heard, promise: Promise) -> dict[str, Any]:
    """The figures of one load; those of the window as a whole are None if the load was taken away before its end."""
    now, counted = heard.ended_s, heard.counted()
    start, end = heard.bounds
    length = end - start if now >= end else None
    first = {stream.number: 1e3 * stream.first_audio(now) for stream in counted if stream.arrivals_s}
    errors = [stream.error or heard.problems.get(stream.number) for stream in counted]
    n_late = sum(is_late(stream, promise, now) for stream in counted)
    n_broken = sum(is_broken(stream, now) or error is not None for stream, error in zip(counted, errors, strict=True))
    came = [
        seconds
        for stream in heard.streams
        for arrival, seconds in zip(stream.arrivals_s, stream.part_seconds, strict=True)
        if start <= arrival < end
    ]
    n = max(1, len(counted))
    n_least = max(1, heard.n_due)
    return {
        "kept": length is not None
        and bool(counted)
        and n_late <= (1 - promise.first_audio_share) * n_least + 1e-9
        and n_broken <= (1 - promise.gapless_share) * n_least + 1e-9,
        "listeners": length and sum(stream.listened(start, end) for stream in heard.streams) / length,
        "requests_per_s": length and len(counted) / length,
        "audio_s_per_s": length and sum(came) / length,
        "n_requests": len(counted),
        "n_new_voices": sum(stream.number in heard.new_voice for stream in counted),
        "n_failed": sum(error is not None for error in errors),
        "failures": dict(Counter(error for error in errors if error is not None).most_common()),
        "n_unfinished": sum(not stream.is_whole and stream.error is None for stream in counted),
        "late_share": n_late / n,
        "gapless_share": 1 - n_broken / n,
        "longest_wait_ms": max((1e3 * max(0.0, stream.wait(now)) for stream in counted), default=None),
        **percentiles("ttfa_ms", list(first.values())),
        **percentiles("new_voice_ttfa_ms", [ms for number, ms in first.items() if number in heard.new_voice]),
        **percentiles("lag_ms", [1e3 * lag for lag in heard.lags_s]),
        **_first_sounds([stream for stream in counted if stream.marks], heard.new_voice),
        "ended_early": length is None,
        "promise": asdict(promise),
        **asdict(heard.window),
    }


def _first_sounds(streams: Sequence[Stream], new_voice: frozenset[int]) -> dict[str, dict[str, float | None]]:
    """Where the milliseconds of those went that tell of it; nothing where none does."""
    parts = {}
    for stream in streams:
        heard_s = stream.arrivals_s[0]
        with contextlib.suppress(UnusableAnswer):  # one that tells too little; the others tell where time goes
            parts[stream.number] = parts_ms(stream.asked_s, stream.marks, heard_s, heard_s)
    by_length = sorted(parts.values(), key=lambda of_one: sum(of_one.values()))
    found = {
        "parts_ms_p50": (np.median, [of_one for number, of_one in parts.items() if number not in new_voice]),
        "new_voice_parts_ms_p50": (np.median, [of_one for number, of_one in parts.items() if number in new_voice]),
        "slowest_parts_ms_mean": (np.mean, by_length[-max(1, len(by_length) // 10) :]),
    }
    return {name: each_part(statistic, of_some) for name, (statistic, of_some) in found.items() if of_some}
