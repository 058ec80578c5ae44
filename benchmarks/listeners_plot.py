"""The loads of `listeners` in a picture: first audio and gaps over the listeners that were offered, and the promise.

    python -m sglang_moss.benchmarks.listeners_plot listeners.jsonl --out listeners.svg

Lines of several files or commits are curves of their own. Needs matplotlib: the project's extra `bench`.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .plot import pyplot
from .runs.record import read_lines

LOAD = "listeners_load"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, nargs="+", help="files of `listeners`")
    parser.add_argument("--out", type=Path, default=Path("listeners.svg"), help="what it ends in is the format")
    args = parser.parse_args()
    plot([line for path in args.lines for line in read_lines(path)], args.out)


def plot(lines: Iterable[Mapping[str, Any]], out: Path) -> None:
    """Two panels in one picture.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    plt = pyplot()
    lines = list(lines)
    figure, (first_audio, gaps) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axes, key, label, bound in (
        (first_audio, "ttfa_ms_p95", "first audio p95, ms", "first_audio_ms"),
        (gaps, "gapless_share", "share of streams without a gap", "gapless_share"),
    ):
        for name, curve in curves(lines, key).items():
            axes.plot(*zip(*curve, strict=True), marker="o", label=name)
        for promised in sorted({line["promise"][bound] for line in lines if line.get("benchmark") == LOAD}):
            axes.axhline(promised, color="black", linestyle="--", linewidth=1)
        axes.set(xlabel="listeners offered", ylabel=label)
        axes.grid(True, alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(out)
    plt.close(figure)


def curves(lines: Iterable[Mapping[str, Any]], key: str) -> dict[str, list[tuple[float, float]]]:
    """Values by what was measured, in the order of the load; of two lines of the same load the later one counts."""
    values: dict[str, dict[float, float]] = defaultdict(dict)
    for line in lines:
        if line.get("benchmark") == LOAD and line.get(key) is not None:
            values[_name(line)][line["offered_listeners"]] = line[key]
    return {name: sorted(curve.items()) for name, curve in values.items()}


def _name(line: Mapping[str, Any]) -> str:
    what = "plain text model, same engine" if line.get("plain") else "speech"
    known = (line.get("label"), line.get("commit"), line.get("gpu"))
    return ", ".join([what, *(str(part) for part in known if part)])


if __name__ == "__main__":
    sys.exit(main())
