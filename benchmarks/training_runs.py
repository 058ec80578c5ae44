"""What docs/fine-tuning.md says of two cards and of packing, measured in two calls of at most nine minutes.

    python3 -m sglang_moss.benchmarks.training_runs cards --out results
    python3 -m sglang_moss.benchmarks.training_runs packing --out results

`cards`     one card against two: full training of 1.7 B, of 8 B with 6 layers, LoRA of 8 B, and whether both agree
`packing`   packed, padded, batched and upstream's loop; compiled layers; every backend and kernel against plain torch

Each card has its own steps, and those that need both come afterwards. A step that fails or takes too long loses no
other; `--steps` takes only some. Lines, logs and a table lie in `--out`. `--small` rehearses it on a CPU.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument

_BENCHMARKS = "sglang_moss.benchmarks"
_STEPS = ("--steps", "6", "--warmup", "2")
_FEW = ("--steps", "4", "--warmup", "1")  # of LoRA's, which take 5 s each
_SLOW = ("--steps", "2", "--warmup", "1")  # of upstream's loop, a dialogue at a time
_17 = ("--case", "full-1.7b", "--saved-share", "1")
_17_LONG = ("--case", "full-1.7b", "--lengths", "long")  # its largest batch has 54,000 rows
_8 = ("--case", "full-8b", "--layers", "6")
_LORA = ("--case", "lora-8b")
_TINY = {"full-1.7b": "tiny", "full-8b": "tiny", "lora-8b": "tiny-lora"}


@dataclass(frozen=True)
class Step:
    """One program."""

    name: str
    lane: str  # a, b: a card of its own; both
    limit_s: int
    arguments: tuple[str, ...]
    program: str = "training"


_PARTS = {
    "cards": (
        Step("one17", "a", 100, (*_17, *_STEPS)),
        Step("one8", "a", 100, (*_8, *_STEPS)),
        Step("onelora", "b", 120, (*_LORA, *_FEW)),
        Step("two17", "both", 100, (*_17, *_STEPS, "--per-step", "8", "--exchange", "step", "--profile")),
        Step("two8", "both", 100, (*_8, *_STEPS, "--per-step", "8", "--exchange", "step", "--profile")),
        Step("twolora", "both", 120, (*_LORA, *_FEW, "--per-step", "8")),
        Step("ranks", "both", 80, (), "training_rank_checks"),
        Step("two17replicated", "both", 90, (*_17, *_STEPS, "--per-step", "8", "--parallel", "replicated")),
        Step("two17pack", "both", 90, (*_17, *_STEPS, "--per-step", "8", "--exchange", "pack")),
    ),
    "packing": (
        Step("mixed17", "a", 130, (*_17, *_STEPS, "--modes", "packed", "padded", "batched", "--profile")),
        Step("upstream17", "a", 110, (*_17, *_SLOW, "--modes", "packed", "upstream")),
        Step("long17", "a", 110, (*_17_LONG, *_STEPS, "--modes", "packed", "padded", "batched")),
        Step("compiled17", "a", 170, (*_17, *_STEPS, "--compile")),
        Step("mixedlora", "b", 200, (*_LORA, *_FEW, "--modes", "packed", "padded", "batched")),
        Step("checks", "b", 200, (), "training_checks"),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=_PARTS)
    parser.add_argument("--out", type=Path, default=Path("results"))
    add_golden_argument(parser)
    parser.add_argument("--cards", nargs=2, default=["0", "1"], metavar=("A", "B"))
    parser.add_argument("--seconds", type=int, default=520, help="in all")
    parser.add_argument("--steps", nargs="+", help="only these")
    parser.add_argument("--small", action="store_true", help="tiny shapes, a rehearsal")
    args = parser.parse_args()
    steps = [step for step in _PARTS[args.part] if args.steps is None or step.name in args.steps]
    if unknown := set(args.steps or ()) - {step.name for step in steps}:
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in _PARTS[args.part])}")
    exit_on_sigterm()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = _Runs(args, time.monotonic() + args.seconds)
    lanes = [threading.Thread(target=runs.lane, args=([s for s in steps if s.lane == lane],)) for lane in ("a", "b")]
    try:
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        runs.lane([step for step in steps if step.lane == "both"])
    finally:
        runs.stop()
    if (lines := args.out / "training.jsonl").exists():
        subprocess.run([sys.executable, "-m", f"{_BENCHMARKS}.training_table", str(lines)], check=False)
    print("\n".join(runs.told))
    return 1 if runs.n_failed else 0


class _Runs:
    def __init__(self, args: argparse.Namespace, ends: float) -> None:
        self._args, self._ends = args, ends
        self.told: list[str] = []
        self.n_failed = 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End what runs, and begin nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    def lane(self, steps: list[Step]) -> None:
        """Steps that follow each other."""
        for step in steps:
            started = time.monotonic()
            limit_s = min(step.limit_s, self._ends - started)
            status = self._run(step, limit_s) if limit_s > 20 else "no time left"
            self.n_failed += status != "done"
            self.told.append(f"{step.name}: {status}, {time.monotonic() - started:.0f} s")
            print(self.told[-1], flush=True)

    def _run(self, step: Step, limit_s: float) -> str:
        log = self._args.out / f"{step.name}.log"
        cards = {"a": self._args.cards[:1], "b": self._args.cards[1:]}.get(step.lane, self._args.cards)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(cards)}
        with log.open("wb") as file:
            with self._lock:
                if self._stopped:
                    return "stopped"
                process = subprocess.Popen(
                    list(self._command(step)), stdout=file, stderr=file, env=environment, start_new_session=True
                )
                self._running.add(process)
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return f"not done after {limit_s:.0f} s"
            finally:
                with self._lock:
                    self._running.remove(process)
                    _kill(process)
        return "done" if status == 0 else f"status {status}, see {log.name}"

    def _command(self, step: Step) -> Iterator[str]:
        yield from (sys.executable, "-m")
        if step.lane == "both":
            yield from ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
        name = "training.jsonl" if step.program == "training" else "checks.jsonl"
        yield from (f"{_BENCHMARKS}.{step.program}", "--golden", str(self._args.golden))
        yield from ("--out", str(self._args.out / name))
        yield from (_TINY.get(word, word) if self._args.small else word for word in step.arguments)
        if self._args.small and step.program == "training":
            yield from ("--steps", "1", "--warmup", "1", "--dialogues", "60", "--workers", "1")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """A program with its ranks and workers, unless it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
