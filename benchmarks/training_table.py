"""What `benchmarks.training` measured, as a table, and how its lines compare.

python3 -m sglang_moss.benchmarks.training_table training.jsonl
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .record import read_lines

_COLUMNS = (
    ("case", "case"),
    ("layers", "layers"),
    ("n_gpus", "GPUs"),
    ("mode", "mode"),
    ("checkpointing", "checkpointing"),
    ("saved_share", "saved"),
    ("compile", "compiled"),
    ("attention", "attention"),
    ("rows_per_s_per_gpu", "rows/s/GPU"),
    ("tflops_per_gpu", "TFLOP/s"),
    ("mfu", "MFU"),
    ("of_matmul", "of matmul"),
    ("waiting_share", "waiting"),
    ("peak_memory_gb", "GB"),
    ("estimated_memory_gb", "estimated"),
)
_PERCENT = {"mfu", "of_matmul", "waiting_share"}
_ALIKE = ("case", "layers", "checkpointing", "saved_share", "compile", "attention", "pack_rows")


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
    """Packed against padded, and several GPUs against one, where all else is alike."""
    for line in lines:
        for other in lines:
            if line["mode"] != "packed" or any(line[key] != other[key] for key in _ALIKE):
                continue
            of, gpus = line["rows_per_s"] / other["rows_per_s"], (line["n_gpus"], other["n_gpus"])
            if other["mode"] == "padded" and gpus[0] == gpus[1]:
                yield f"{line['case']}: packed is {of:.2f} times padded"
            elif other["mode"] == "packed" and gpus[0] > gpus[1]:
                yield f"{line['case']}, {line['layers']} layers: {gpus[0]} GPUs are {of:.2f} times {gpus[1]}"


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
