"""From the marks of first sounds to a table of where their milliseconds went."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sglang_moss.request.first_sound import MARKS

from ...clients import UnusableAnswer

PARTS = {  # by the mark that ends each, those of the client included: what passed until then
    "received": "on the way to the server",
    "read": "its body, until it is parsed",
    "checked": "settings and script checked",
    "references": "references known or encoded",
    "prompt": "rows of the prompt",
    "scheduler": "to the scheduler",
    "prefill": "in its queue",
    "first_row": "prefill",
    "frames": "decoding steps up to the frames",
    "codec": "until the codec comes to them",
    "decoded": "the codec's step",
    "left": "until the scheduler sends them",
    "answered": "to the HTTP process",
    "arrived": "the event on the wire",
    "heard": "read by the client",
}
assert tuple(PARTS) == (*MARKS, "arrived", "heard")
_REMAINDER = "what the medians leave"


def parts_ms(sent: float, marks: Mapping[str, float], arrived: float, heard: float) -> dict[str, float]:
    """Milliseconds of each part of `PARTS`; their sum is the time from `sent` to `heard`.

    Args:
        sent: when the client began to send; seconds of the machine's monotonic clock, as all times here.
        marks: `meta_info.timings` of the first event.
        arrived: when the client had this event.
        heard: when it had its samples.
    Raises:
        UnusableAnswer: marks are missing, or of another machine's clock.
    """
    missing = [name for name in MARKS if name not in marks]
    if missing:
        raise UnusableAnswer(f"the first event tells no {', '.join(missing)}: a server without `timings`?")
    times = [sent, *(marks[name] for name in MARKS), arrived, heard]
    parts = {name: 1e3 * (after - before) for name, (before, after) in zip(PARTS, pairwise(times), strict=True)}
    if backwards := [name for name, ms in parts.items() if ms < 0]:
        raise UnusableAnswer(
            f"times go backwards at {', '.join(backwards)}: the server's clock is another one; run this where it runs"
        )
    return parts


def figures(streams: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Of streams as `parts_ms` gives them: p50 and mean of every part, and of their sums; None without any."""
    totals = [sum(parts.values()) for parts in streams]
    p50 = each_part(np.median, streams)
    first_audio = _of(np.median, totals)
    return {
        "first_audio_ms_p50": first_audio,
        "first_audio_ms_mean": _of(np.mean, totals),
        "parts_ms_p50": p50,
        "parts_ms_mean": each_part(np.mean, streams),
        "remainder_ms_p50": None if first_audio is None else first_audio - sum(ms or 0.0 for ms in p50.values()),
    }


def each_part(statistic: Any, streams: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """A statistic of every part of streams as `parts_ms` gives them; None without any."""
    return {name: _of(statistic, [parts[name] for parts in streams]) for name in PARTS}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row for each part, a column for each case: milliseconds, p50; none for cases in which every request failed."""
    lines = [line for line in lines if line["first_audio_ms_p50"] is not None]
    columns = [_column(line) for line in lines]
    names = [
        "voices",
        "at once",
        "frames in the first event",
        *PARTS.values(),
        _REMAINDER,
        "first audio, as the client has it",
    ]
    width = max(map(len, names))
    widths = [max(map(len, column)) for column in columns]
    rows = zip(names, *columns, strict=True)
    return "\n".join(
        "  ".join([f"{name:<{width}}", *(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))])
        for name, *cells in rows
    )


def _column(line: Mapping[str, Any]) -> list[str]:
    p50 = line["parts_ms_p50"]
    values = [*(p50[name] for name in PARTS), line["remainder_ms_p50"], line["first_audio_ms_p50"]]
    heads = [line["voices"], str(line["concurrency"]), f"{line['first_event_frames']:g}"]
    return [*heads, *(f"{value:.1f}" for value in values)]


def _of(statistic: Any, values: Sequence[float]) -> float | None:
    return float(statistic(values)) if values else None
