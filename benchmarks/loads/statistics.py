"""From the exchanges of one case to its figures.

- `wall_s`: first request sent to last answer received; `audio_s_per_s` is the audio that passed the checks over it.
- The steady window: from when the last of the `concurrency` clients has sent its first request until the first of them
  has nothing left to send. `steady_audio_s_per_s` is the work done in it: an answer whose time lies partly inside
  counts with that part.
- RTF: seconds from sent to the last byte, over seconds of audio in the answer.
- TTFA: milliseconds from sent to the first audio; without streaming, that is the answer.
- Playback starts with the first chunk. A stream has a gap if a chunk comes after all earlier audio has been played.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .loops import Exchange
from .speech_reading import SpeechReading

_QUANTILES = (50, 95, 99)


def summary(exchanges: Sequence[Exchange[SpeechReading]], concurrency: int | None, stream: bool) -> dict[str, Any]:
    """The figures of one case; `concurrency` is None for an open loop, which has no steady window."""
    passed = [exchange for exchange in exchanges if failure(exchange) is None]
    readings = [exchange.reading for exchange in passed if exchange.reading is not None]
    wall_s = max(e.done_s for e in exchanges) - min(e.sent_s for e in exchanges)
    audio_s = sum(reading.seconds for reading in readings)
    reasons = Counter(reason for reason in map(failure, exchanges) if reason is not None)
    waits = [longest_wait(e.arrivals_s, r.part_seconds) for e, r in zip(passed, readings, strict=True)]
    window = steady_window(exchanges, concurrency) if concurrency is not None else None
    return {
        "n_requests": len(exchanges),
        "n_failed": sum(reasons.values()),
        "failures": dict(reasons.most_common()),
        "audio_s": audio_s,
        "wall_s": wall_s,
        "audio_s_per_s": audio_s / wall_s,
        "steady_audio_s_per_s": window and steady_rate(passed, [r.seconds for r in readings], window),
        "steady_window_s": window and window[1] - window[0],
        "requests_per_s": len(passed) / wall_s,
        **percentiles("rtf", [e.seconds / r.seconds for e, r in zip(passed, readings, strict=True)]),
        **percentiles("ttfa_ms", [1e3 * (e.arrivals_s[0] - e.sent_s) for e in passed]),
        **percentiles("latency_s", [e.seconds for e in passed]),
        "gapless_share": mean([wait <= 0 for wait in waits]) if stream else None,
        "longest_wait_ms": max((1e3 * max(wait, 0.0) for wait in waits), default=None) if stream else None,
        "n_silent": sum(reading.is_silent for reading in readings),
        "clipped_share": mean([reading.clipped_share for reading in readings]),
        "prompt_tokens": mean([r.prompt_tokens for r in readings if r.prompt_tokens is not None]),
        "cached_tokens": mean([r.cached_tokens for r in readings if r.cached_tokens is not None]),
        "references_cached_share": mean([r.reference_cached for r in readings if r.reference_cached is not None]),
    }


def failure(exchange: Exchange[SpeechReading]) -> str | None:
    """Why a request counts for nothing: it failed, or its audio did not pass."""
    if exchange.error is not None:
        return exchange.error
    return exchange.reading.problem if exchange.reading is not None else "no answer"


def steady_window(exchanges: Sequence[Exchange[Any]], concurrency: int) -> tuple[float, float] | None:
    """When every client of a closed loop was busy: start and end; None if they never all were."""
    if len(exchanges) < concurrency:
        return None
    start = sorted(exchange.sent_s for exchange in exchanges)[concurrency - 1]
    end = sorted(exchange.done_s for exchange in exchanges)[-concurrency]
    return (start, end) if end > start else None


def steady_rate(exchanges: Sequence[Exchange[Any]], amounts: Sequence[float], window: tuple[float, float]) -> float:
    """What was done in the window per second of it; each exchange's amount is spread evenly over its time."""
    start, end = window
    done = 0.0
    for exchange, amount in zip(exchanges, amounts, strict=True):
        inside = max(0.0, min(end, exchange.done_s) - max(start, exchange.sent_s))
        done += amount * inside / exchange.seconds
    return done / (end - start)


def longest_wait(arrivals_s: Sequence[float], part_seconds: Sequence[float]) -> float:
    """The longest time that a listener waits in the middle of a stream: how much the latest chunk came too late.

    Playback that starts with the first chunk and never stops needs every chunk by the end of the audio before it.
    Negative or 0: no gap; -inf: a single chunk.
    """
    played_until, longest = arrivals_s[0], float("-inf")
    for arrival, before in zip(arrivals_s[1:], part_seconds, strict=False):
        played_until += before
        longest = max(longest, arrival - played_until)
        played_until = max(played_until, arrival)  # after a gap, playback goes on from there
    return longest


def percentiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """`{name}_p50`, `_p95` and `_p99`; None without values."""
    return {f"{name}_p{q}": float(np.percentile(values, q)) if len(values) else None for q in _QUANTILES}


def mean(values: Iterable[float]) -> float | None:
    """None without values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
