"""`python -m sglang_moss.training.golden DIR --serving-golden DIR`: check a golden directory, a line a case.

Exit status: 0 everything agrees, 1 something differs, 2 wrong usage.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from sglang_moss.devices import device_problem
from sglang_moss.request.golden_report import Case

from ..attention import BACKENDS
from ..rows import label_counts, n_input_rows
from .model_check import check_model, golden_model
from .records import GoldenRecords
from .steps_check import check_steps


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks with `argv` (default: the command line); returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sglang_moss.training.golden", description=__doc__)
    parser.add_argument("directory", type=Path, help="of rows.npz, loss.json, grads.npz, train_run.json")
    parser.add_argument("--serving-golden", type=Path, required=True, help="holds the checkpoint they were made with")
    parser.add_argument("--checkpoint", default="ttsd", help="its name there")
    parser.add_argument("--attention", default="sdpa", choices=BACKENDS)
    parser.add_argument("--device", default="cpu", help="cuda checks the kernels as well")
    args = parser.parse_args(argv)
    if (problem := device_problem(args.device)) is not None:
        parser.error(f"--device: {problem}")
    torch.set_num_threads(1)
    n_cases = n_different = 0
    for case in cases(args.directory, args.serving_golden / args.checkpoint, args.attention, args.device):
        print(case, flush=True)
        n_cases += 1
        n_different += bool(case.differences)
    print(f"{n_cases} cases, {n_different} differ")
    return 1 if n_different or not n_cases else 0


def cases(directory: Path, checkpoint: Path, attention: str = "sdpa", device: str = "cpu") -> Iterator[Case]:
    """Everything that a golden directory says."""
    records = GoldenRecords(directory, checkpoint)
    yield from check_rows(directory, records)
    model = golden_model(checkpoint, attention, device)
    yield from check_model(directory, records, model)
    yield from check_steps(directory, records, model)


def check_rows(directory: Path, records: GoldenRecords) -> Iterator[Case]:
    """Rows, labels and their counts of every record under every template stored."""
    facts = {fact["key"]: fact for fact in json.loads((directory / "rows.json").read_text(encoding="utf-8"))}
    n_vq = records.tokens.n_vq
    with np.load(directory / "rows.npz") as stored:
        keys = sorted({name.rpartition(".")[0] for name in stored.files} | facts.keys())
        for key in keys:
            case, made, fact = Case(f"rows {key}"), records.rows(key), facts[key]
            case.equal("rows", made.rows, stored[f"{key}.rows"])
            case.equal("labels", made.labels, stored[f"{key}.labels"])
            case.equal("label counts", label_counts(fact["frames"], 1, n_vq), np.array(fact["label_counts"]))
            counted = n_input_rows(np.array(made.n_prompt_rows), np.array(fact["frames"]), n_vq)
            case.equal("input rows", counted, np.array(fact["input_rows"]))
            yield case


if __name__ == "__main__":
    sys.exit(main())
