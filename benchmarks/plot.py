"""Plots of result lines: audio-s/s over concurrency beside the plain engine's, and time to the first audio.

    python -m sglang_moss.benchmarks.plot release/release.jsonl --out serving.svg

Needs matplotlib: install the project with its extra `bench`.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .loads.ceiling import BENCHMARK as CEILING
from .runs.record import read_lines

Curve = list[tuple[int, float]]  # concurrency, value; in the order of concurrency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, nargs="+", help="files of `serving` and `engine_ceiling`")
    parser.add_argument("--workload", default="dialogue")
    parser.add_argument("--out", type=Path, default=Path("serving.svg"), help="what it ends in is the format")
    args = parser.parse_args()
    lines = [line for path in args.lines for line in read_lines(path) if line.get("workload") == args.workload]
    plot(lines, f"{args.workload}, {' and '.join(sorted({str(line.get('gpu')) for line in lines}))}", args.out)


def plot(lines: Iterable[Mapping[str, Any]], title: str, out: Path) -> None:
    """Two panels in one picture.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    plt = pyplot()
    lines = list(lines)
    figure, (throughput, first_audio) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axes, figures, label in (
        (throughput, curves(lines, "audio_s_per_s"), "seconds of audio a second"),
        (first_audio, curves(lines, "ttfa_ms_p50"), "TTFA p50, ms"),
    ):
        for name, curve in figures.items():
            axes.plot(*zip(*curve, strict=True), marker="o", label=name)
        axes.set(xlabel="requests at once", ylabel=label, xscale="log", yscale="log")
        axes.grid(True, which="both", alpha=0.3)
        if figures:
            axes.legend()
    figure.suptitle(title)
    figure.savefig(out)
    plt.close(figure)


def pyplot() -> Any:
    """Of matplotlib, which is an extra.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        from matplotlib import pyplot as found  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SystemExit("error: matplotlib is missing; install the project with its extra `bench`") from error
    return found


def curves(lines: Iterable[Mapping[str, Any]], key: str) -> dict[str, Curve]:
    """Closed-loop values by what was measured; of two lines of the same case the later one counts."""
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for line in lines:
        if line.get("concurrency") is not None and line.get(key) is not None:
            values[_name(line)][line["concurrency"]] = line[key]
    return {name: sorted(curve.items()) for name, curve in values.items()}


def _name(line: Mapping[str, Any]) -> str:
    if line["benchmark"] == CEILING:
        name = "plain text model, same engine"
    else:
        name = "streaming" if line.get("stream") else "whole answers"
    name += ", new voices" if line.get("uncached_references") else ""
    return f"{name}, mixed lengths" if line.get("spread") else name


if __name__ == "__main__":
    sys.exit(main())
