"""A result as one HTML page: figures, plots, and every item with its player, its words and its voices.

The page has no script and asks for nothing from elsewhere. Speech is played from files beside the page, by relative
paths, or from the page itself (`embed`). All text comes from strangers and is escaped by the template.
"""

import base64
import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .error_rates import pieces_of
from .errors import load
from .plots import plots_of
from .results import Figure, ItemScore, Result
from .spoken_words import INSTALL
from .statistics import METRICS, Metric

_TEMPLATE = "report.html.jinja"
_EMBEDDED_BYTES = 40_000_000  # of speech in one page; beyond it, browsers suffer


def write_report(result: Result, result_folder: Path, path: Path, *, embed: bool = False) -> None:
    """Write the page of a result.

    Args:
        result_folder: that relative paths of audio start from.
        path: of the page; replaced if it exists.
        embed: put the speech into the page, up to 40 MB of it; what is left is linked.
    Raises:
        OSError: it cannot be written.
    """
    players = _Players(result_folder, path.parent, _EMBEDDED_BYTES if embed else 0)
    jinja2: Any = load("jinja2", "the report", INSTALL)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(_TEMPLATE).render(
        result=result,
        figures=[(metric, result.figures[metric.name]) for metric in METRICS if metric.name in result.figures],
        plots=plots_of(result),
        items=sorted(result.items, key=_worst_first),
        player=players.source,
        words=lambda item: list(_words(item)),
        shown=_shown,
    )
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(page, "utf-8")
    beside.replace(path)


class _Players:
    """Where a page finds the speech of an item."""

    def __init__(self, result_folder: Path, page_folder: Path, budget: int) -> None:
        self._result_folder = result_folder
        self._page_folder = page_folder
        self._budget = budget

    def source(self, item: ItemScore) -> str | None:
        if item.audio is None:
            return None
        file = self._result_folder / item.audio
        size = file.stat().st_size if file.is_file() else 0
        if 0 < size <= self._budget:
            self._budget -= size
            kind = mimetypes.guess_type(file.name)[0] or "audio/wav"
            return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
        return quote(os.path.relpath(file.absolute(), self._page_folder.absolute()))


def _worst_first(item: ItemScore) -> tuple[bool, float, str]:
    return item.problem is None, -(item.words.rate if item.words else 0.0), item.id


def _words(item: ItemScore) -> Iterator[tuple[str, str, str]]:
    """(kind, said, heard) of each run of words."""
    said, heard = item.said.split(), item.heard.split()
    between = "" if item.language == "zh" else " "
    for piece in pieces_of(said, heard):
        yield piece.kind, between.join(said[slice(*piece.said)]), between.join(heard[slice(*piece.heard)])


def _shown(metric: Metric, figure: Figure) -> tuple[str, str]:
    """A figure and its interval, in words."""
    scale, unit = (100, " %") if metric.is_share else (1, "")
    digits = 1 if metric.is_share else 3

    def number(value: float) -> str:
        return f"{scale * value:.{digits}f}"

    if figure.low is None or figure.high is None:
        return number(figure.value) + unit, "one item: no interval"
    return number(figure.value) + unit, f"{number(figure.low)} to {number(figure.high)}{unit}"
