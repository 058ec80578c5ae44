"""Plots of a result, as SVG."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .results import ItemScore, Result

_INK, _GOOD, _BAD = "#3b4a5a", "#2f7d5b", "#b3423a"
_SIZE = (5.2, 3.2)  # inches


def plots_of(result: Result) -> list[tuple[str, str]]:
    """(what it shows, data URI of an SVG) of each plot that the result has something for."""
    judged = [item for item in result.items if item.problem is None]
    made = []
    for title, draw in (
        ("Word error rate of each item", _error_rates),
        ("Similarity of each turn to its own reference and to the nearest other one", _similarities),
        ("Length of the speech against length of the text", _lengths),
    ):
        if (plot := _plot(draw, judged)) is not None:
            made.append((title, plot))
    return made


def _plot(draw: Any, items: Sequence[ItemScore]) -> str | None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "moss-ttsd", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        if not draw(axes, items):
            return None
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _error_rates(axes: Any, items: Sequence[ItemScore]) -> bool:
    rates = [100 * item.words.rate for item in items if item.words]
    if rates:
        axes.hist(rates, bins=np.arange(0, max(105.0, *rates) + 5, 5), color=_INK)
        axes.set(xlabel="word error rate, %", ylabel="items", xlim=(0, None))
        axes.yaxis.get_major_locator().set_params(integer=True)
    return bool(rates)


def _similarities(axes: Any, items: Sequence[ItemScore]) -> bool:
    turns = [turn for item in items for turn in item.turns if turn.counts]
    for is_right, colour, name in ((True, _GOOD, "right speaker"), (False, _BAD, "wrong speaker")):
        chosen = [turn for turn in turns if turn.is_right == is_right]
        others = [max(s for k, s in turn.similarities.items() if k != turn.speaker) for turn in chosen]
        own = [turn.similarity for turn in chosen]
        axes.scatter(others, own, s=14, color=colour, alpha=0.7, label=f"{name} ({len(chosen)})", linewidths=0)
    if turns:
        everything = [s for turn in turns for s in turn.similarities.values()]
        line = [min(everything), max(everything)]
        axes.plot(line, line, color=_INK, linewidth=0.8, linestyle="--")
        axes.set(xlabel="cosine to the nearest other reference", ylabel="cosine to its own reference")
        axes.legend(frameon=False)
    return bool(turns)


def _lengths(axes: Any, items: Sequence[ItemScore]) -> bool:
    points = [(len(item.said), item.signal.seconds, item.signal.flags) for item in items if item.signal]
    for flagged, colour, name in ((False, _INK, "no flag"), (True, _BAD, "a flag")):
        chosen = [(letters, seconds) for letters, seconds, flags in points if bool(flags) == flagged]
        if chosen:
            axes.scatter(*zip(*chosen, strict=True), s=14, color=colour, alpha=0.7, label=name, linewidths=0)
    if points:
        axes.set(xlabel="characters of the text", ylabel="seconds of speech", xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False, loc="lower right")
    return bool(points)
