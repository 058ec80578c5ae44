"""Bars that a result has to clear, as `moss-ttsd eval --require "wer<=0.15"` gives them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import CannotJudge
from .results import Figure
from .statistics import METRICS

_BAR = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\d*\.?\d+)\s*")
_NAMES = tuple(metric.name for metric in METRICS)


@dataclass(frozen=True)
class Bar:
    """A figure must be at most, or at least, so much."""

    name: str
    at_most: bool
    value: float

    def __str__(self) -> str:
        return f"{self.name}{'<=' if self.at_most else '>='}{self.value:g}"

    def missed_by(self, figures: dict[str, Figure]) -> str | None:
        """What is wrong, if anything; a figure that is not there clears no bar."""
        figure = figures.get(self.name)
        if figure is None:
            return f"{self}: nothing in the dataset gives {self.name}"
        holds = figure.value <= self.value if self.at_most else figure.value >= self.value
        return None if holds else f"{self}: {self.name} is {figure.value:.4f}"


def bars_of(texts: Iterable[str]) -> list[Bar]:
    """Raises CannotJudge where one is no figure, comparison and number."""
    bars = []
    for text in texts:
        found = _BAR.fullmatch(text)
        if found is None or found[1] not in _NAMES:
            raise CannotJudge(
                f"--require takes one of {', '.join(_NAMES)}, then <= or >=, then a number, such as wer<=0.15; "
                f"got {text!r}"
            )
        bars.append(Bar(found[1], found[2] == "<=", float(found[3])))
    return bars


def missed(bars: Sequence[Bar], figures: dict[str, Figure]) -> list[str]:
    """A sentence for each bar that was not cleared."""
    return [problem for bar in bars if (problem := bar.missed_by(figures)) is not None]
