"""What `benchmarks.training` measured, as a table, and how its lines compare.

python3 -m sglang_moss.benchmarks.training_table training.jsonl
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .runs.record import read_lines

_COLUMNS = (
    ("case", "case"),
    ("layers", "layers"),
    ("n_gpus", "GPUs"),
    ("mode", "mode"),
    ("checkpointing", "checkpointing"),
    ("saved_share", "saved"),
    ("compile", "compiled"),
    ("attention", "attention"),
    ("lengths", "lengths"),
    ("parallel", "parallel"),
    ("exchange", "exchange"),
    ("rows_per_s_per_gpu", "rows/s/GPU"),
    ("tflops_per_gpu", "TFLOP/s"),
    ("mfu", "MFU"),
    ("of_matmul", "of matmul"),
    ("fill", "fill"),
    ("waiting_share", "waiting"),
    ("peak_memory_gb", "GB"),
    ("estimated_memory_gb", "estimated"),
)
_PERCENT = {"mfu", "of_matmul", "waiting_share", "fill"}
_DATA = ("gpu", "case", "layers", "lengths")
_ALIKE = (*_DATA, "checkpointing", "saved_share", "compile", "attention", "pack_rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    lines = read_lines(parser.parse_args().file)
    measured = [line for line in lines if "rows_per_s" in line]
    rows = [
        [title for _, title in _COLUMNS],
        *([_shown(key, line.get(key)) for key, _ in _COLUMNS] for line in measured),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    for sentence in ratios(measured):
        print(sentence)
    for line in lines:
        if "error" in line:
            print(f"{line.get('case')}: {line['error']}")
        if line.get("kernels"):
            took = f"a step {1e3 * line['profiled_s']:.0f} ms, kernels {line['kernels_ms']:.0f} ms"
            print(f"\n{line['case']} {line['mode']}, {line['n_gpus']} GPUs: {took}")
            for kernel in line["kernels"]:
                print(f"  {kernel['ms']:8.1f} ms {kernel['calls']:6d} x {kernel['name']}")


def ratios(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Packed against the others, and several GPUs against one, where all else is alike."""
    for line in lines:
        for other in lines:
            alike = _DATA if other["mode"] == "upstream" else _ALIKE
            if line["mode"] != "packed" or any(line.get(key) != other.get(key) for key in alike):
                continue
            of, gpus = line["rows_per_s"] / other["rows_per_s"], (line["n_gpus"], other["n_gpus"])
            if other["mode"] != "packed" and gpus[0] == gpus[1]:
                yield f"{line['case']}: packed is {of:.2f} times {other['mode']}{_ideal(line, other)}"
            elif other["mode"] == "packed" and gpus[0] > gpus[1]:
                way = "replicated" if line.get("parallel") == "replicated" else f"exchange {line.get('exchange')}"
                yield f"{line['case']}, {line['layers']} layers, {way}: {gpus[0]} GPUs are {of:.2f} times {gpus[1]}"


def _ideal(line: dict[str, Any], other: dict[str, Any]) -> str:
    """What the shares of examples among all rows, and in all arithmetic, would make of it."""
    if "arithmetic_fill" not in line or "arithmetic_fill" not in other:
        return ""
    by_rows, by_arithmetic = (line[key] / other[key] for key in ("fill", "arithmetic_fill"))
    return f"; by rows computed {by_rows:.2f}, by arithmetic {by_arithmetic:.2f}"


def _shown(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        if key in _PERCENT:
            return f"{100 * value:.1f} %"
        return f"{value:.0f}" if value >= 100 else f"{value:.4g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
