"""The bars of the quality gates, and the lines that say which were cleared."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from ...evaluation.comparison import compare
from ...evaluation.results import Result
from .speech import Stream

Line = dict[str, Any]
AT_MOST = {"codec": 0.05, "wer": 0.15, "unspoken": 0, "streams_apart": 0, "rtf": 1.0, "first_audio_s": 1.5}
AT_LEAST = {"acc": 0.9}
_ROUNDING_STEPS = 1
_TIMES = ("rtf", "first_audio_s")


def reading(check: str, variant: str, value: float, *, has_bar: bool = True, **more: Any) -> Line:
    """One line; it passes where it clears its bar, and has none where `has_bar` says so or no list names it."""
    at_most, at_least = (bars.get(check) if has_bar else None for bars in (AT_MOST, AT_LEAST))
    line: Line = {"check": check, "variant": variant, "value": value}
    if at_most is not None:
        line |= {"bar": f"<= {at_most:g}", "passes": bool(value <= at_most)}
    elif at_least is not None:
        line |= {"bar": f">= {at_least:g}", "passes": bool(value >= at_least)}
    return line | more


def heard_lines(variant: str, result: Result) -> Iterator[Line]:
    """What the judge says; a figure that it cannot give clears no bar."""
    for name in ("wer", "acc", "sim"):
        figure = result.figures.get(name)
        if figure is None:
            yield reading(name, variant, float("nan"), n=0)
        else:
            yield reading(name, variant, figure.value, low=figure.low, high=figure.high, n=figure.n)
    yield reading("unspoken", variant, result.n_failed, n=len(result.items))


def stream_lines(variant: str, streams: Sequence[Stream], steps: Sequence[float], *, has_bar: bool) -> Iterator[Line]:
    """What a listener had.

    Args:
        steps: how far each is from the whole answer, see `steps_apart`. One is the codec's rounding, which is another
            for other chunks and neighbours.
        has_bar: whether they should be the whole answer; on a GPU their codes may part at a near-tie.
    """
    audio_s, n = sum(stream.seconds for stream in streams), len(streams)
    n_apart = sum(step > _ROUNDING_STEPS for step in steps)
    yield reading("streams_apart", variant, n_apart, has_bar=has_bar, largest_steps=max(steps), n=n)
    rtf = sum(stream.wall_s for stream in streams) / audio_s if audio_s else float("inf")
    yield reading("rtf", variant, rtf, audio_s=audio_s)
    firsts = [stream.first_audio_s for stream in streams]
    yield reading("first_audio_s", variant, max(firsts), median_s=median(firsts), n=n)


def short_form(line: Line) -> Line:
    """What holds of few sentences on a machine that does other things too.

    A rate fails where its whole confidence interval is beyond the bar, or itself is twice as far; times have no bar.
    """
    if line["check"] in _TIMES:
        return {key: value for key, value in line.items() if key not in ("bar", "passes")}
    if "passes" not in line or line.get("low") is None:
        return line
    value, at_most = line["value"], AT_MOST.get(line["check"])
    if at_most is not None:
        passes = line["low"] <= at_most and value <= 2 * at_most
    else:
        at_least = AT_LEAST[line["check"]]
        passes = line["high"] >= at_least and 1 - value <= 2 * (1 - at_least)
    return line | {"passes": bool(passes), "bar": f"about {line['bar']}"}


def cost_lines(first: tuple[str, Result], other: tuple[str, Result]) -> Iterator[Line]:
    """What the other one changes, by the judge's paired comparison."""
    for found in compare(first[1], other[1]).differences:
        more = {"low": found.low, "high": found.high, "p": found.p_value, "metric": found.metric.name}
        yield reading("cost", other[0], found.b - found.a, against=first[0], **more)


def row_of(line: Line) -> str:
    """A line as the table has it."""
    check = f"{line['check']} of {line['metric']}" if "metric" in line else line["check"]
    verdict = {True: "passes", False: "FAILS", None: ""}[line.get("passes")]
    row = f"{check:16} {line['variant']:12} {line['value']:9.4f} {line.get('bar', ''):>9}  {verdict:6}"
    skipped = ("check", "metric", "variant", "value", "bar", "passes")
    more = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items() if k not in skipped)
    return f"{row} {', '.join(more)}".rstrip()
