"""Memory of a whole fine-tuning run on a CPU, against the hours of its dataset: plan, packs, loader, optimizer steps.

    python -m sglang_moss.benchmarks.trainer_memory --golden tests/golden --out trainer_memory.jsonl

The golden model, which is tiny, trains on the made-up datasets of `dataset_memory`. Three epochs are planned, and steps
are taken across the end of the first one, so that the plans of two are held; a hundredth is held out; two processes
make packs. In MiB, of a process that has trained on one pack of another dataset before, so that what torch and the
model take is not counted:

    planned    what the plan added: lengths, what is held out, packs of two epochs
    kept       the same after the last step: the plan, the model with its optimizer, and what the loader has read
    mapped     pages of the dataset's files that are counted as this process's then
    process    this process at its highest, which is torch, the model and a pack
    worker     the same of the processes that make packs, the largest
"""

import argparse
import ctypes
import gc
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import Qwen2Tokenizer

from sglang_moss.request.template import TTSD

from ..training.building import build, read_model_config
from ..training.config_file import config_of
from ..training.distributed import World
from ..training.example import Example
from ..training.loop import Loop
from ..training.model import ModelShape
from ..training.rows import prompt_rows
from ..training.run_plan import RunPlan, plan_run
from .dataset_memory import memory_mib, write
from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument
from .runs.record import record

_N_STEPS = 4  # half of them in the second epoch
_LOOK_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[10.0, 100.0, 1000.0])
    add_golden_argument(parser)
    parser.add_argument("--folder", type=Path, help="for the datasets: 1.4 GB for 1,000 hours")
    parser.add_argument("--out", type=Path, default=Path("trainer_memory.jsonl"))
    parser.add_argument("--train", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train is not None:
        print(json.dumps(_train(args.golden / "ttsd", *args.train)))
        return
    exit_on_sigterm()
    record(args.out, measure(args.hours, args.golden, args.folder))


def measure(all_hours: list[float], golden: Path, folder: Path | None) -> Iterator[dict[str, Any]]:
    """A line for each number of hours."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        first = Path(directory, "first")
        _write(first, 1.0, golden / "ttsd")
        for hours in all_hours:
            data = Path(directory, f"{hours:g}")
            _write(data, hours, golden / "ttsd")
            command = [sys.executable, "-m", "sglang_moss.benchmarks.trainer_memory", "--golden", str(golden)]
            command += ["--train", str(first), str(data)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            yield {"hours": hours, **json.loads(done.stdout.splitlines()[-1])}


def _write(directory: Path, hours: float, model: Path) -> None:
    """A dataset that the golden model takes."""
    directory.mkdir()
    shape = ModelShape.from_dict(read_model_config(model))
    tokenizer, tokens = Qwen2Tokenizer.from_pretrained(str(model)), shape.tokens
    of_text: dict[str, int] = {}

    def count(text: str, clips: list[int]) -> int:
        """Each frame of a clip has a row, whatever the text."""
        if text not in of_text:
            one_frame = np.zeros((1, tokens.n_vq), np.uint16)
            example = Example("", {"text": text}, one_frame, (one_frame, one_frame))
            of_text[text] = len(prompt_rows(example, tokenizer, tokens, TTSD)) - 2
        return of_text[text] + sum(clips)

    digest = hashlib.sha256((model / "tokenizer.json").read_bytes()).hexdigest()
    write(directory, hours, shape.n_codes - 1, digest, count)


def _train(model: Path, first: Path, data: Path) -> dict[str, Any]:
    """Train on both, and look at the memory of this process and of its children while it does on the second."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as output:
        _run(_plan(model, first, Path(output, "first")))
        before = _settled()
        began = time.perf_counter()
        plan = _plan(model, data, Path(output, "second"))
        plan_s = time.perf_counter() - began
        planned = _settled()
        with _Highest() as highest:
            kept = _run(plan)
    return {
        "examples": len(plan.training),
        "held_out": len(plan.validation or ()),
        "steps_an_epoch": plan.planner.steps_in(0),
        "plan_s": plan_s,
        "planned_mib": planned["anonymous"] - before["anonymous"],
        "kept_mib": kept["anonymous"] - before["anonymous"],
        "mapped_mib": (kept["resident"] - kept["anonymous"]) - (before["resident"] - before["anonymous"]),
        "process_mib": highest.own["resident"],
        "worker_mib": highest.worker["resident"],
        "worker_anonymous_mib": highest.worker["anonymous"],
    }


def _plan(model: Path, data: Path, output: Path) -> RunPlan:
    return plan_run(
        config_of(
            {
                "model": str(model),
                "dataset": str(data),
                "output": str(output),
                "epochs": 3,
                "packing": {"rows": 4096, "max_rows": 4096, "per_step": 2},
                "compute": {"device": "cpu", "checkpointing": "full"},
                "data": {"workers": 2},
                "validation": {"share": 0.01},
            }
        )
    )


def _run(plan: RunPlan) -> dict[str, float]:
    """Steps across the end of the first epoch; what memory is taken after them."""
    world = World(0, 1, torch.device("cpu"))
    plan = replace(plan, n_steps=plan.planner.steps_in(0) + _N_STEPS // 2)
    loop = Loop(plan, *build(plan.config, world, Path(plan.config.model)), world)
    loop.step = max(0, loop.n_steps - _N_STEPS)
    loop.run(None)
    kept = _settled()
    loop.checkpoints.close()
    return kept


def _settled() -> dict[str, float]:
    """Memory of this process, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory_mib("self")


class _Highest:
    """The highest memory while it is entered."""

    def __init__(self) -> None:
        self.own = dict.fromkeys(memory_mib("self"), 0.0)
        self.worker = dict(self.own)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Highest":
        self._thread.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._ends.wait(_LOOK_S):
            _raise(self.own, lambda: memory_mib("self"))
            for child in this.children(recursive=True):
                _raise(self.worker, lambda pid=child.pid: memory_mib(pid))


def _raise(most: dict[str, float], look: Callable[[], dict[str, float]]) -> None:
    try:
        most.update({name: max(most[name], value) for name, value in look().items()})
    except (OSError, KeyError):  # it has just ended
        return


if __name__ == "__main__":
    main()
