"""Two cards beside one, in one run: tensor and data parallelism, in bf16 and fp8, and what it costs ranks to agree.

    python -m sglang_moss.fuse --model-path tests/golden/ttsd --codec-model-path tests/golden/codec --save-path tiny
    python -m sglang_moss.benchmarks.random_checkpoint --save-path made
    python -m sglang_moss.benchmarks.several_gpus --tiny-path tiny --model-path made --folder several

Phases, each of them servers that start, are loaded at every concurrency, and end: one card (bf16 on the first beside
fp8 on the second, as two ranks are beside each other later), `--tp-size 2`, `--dp-size 2`, in either precision, and
some of it in fp8 with an fp8 cache. Two ranks of tensor parallelism are held against each other while they are timed,
which costs a step a little; how many rows they drew apart is a line of its own. The broadcast alone, and golden cases
on one rank and on two, come last.

The time is bounded: what has no time left, and what failed, is done by the same command run again, which leaves out
the phases whose lines are there. `--dry-run` proves the program on two processor cores and the tiny checkpoint.
"""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from ..clients.request import FRAME_SECONDS
from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument
from .runs.part_process import Program, module_command, run_together
from .runs.record import read_lines, record
from .runs.release_tables import table, tables
from .serving import ADMIN_KEY_VARIABLE

LINES = "several_gpus.jsonl"
_APART = "moss_ttsd:rows_apart"
_PARITY_S, _BROADCAST_S, _LOAD_S = 200.0, 90.0, 170.0
_LEAST_S = 110.0  # a phase is not begun with less


@dataclass(frozen=True)
class Setup:
    """One server of a phase."""

    precision: str
    tp_size: int = 1
    dp_size: int = 1
    card: int | None = None  # its only one; None: all

    @property
    def name(self) -> str:
        return f"tp{self.tp_size}-dp{self.dp_size}-{self.precision}"

    def is_of(self, line: dict[str, Any]) -> bool:
        """Whether a line was measured so."""
        asked = {"tp_size": self.tp_size, "dp_size": self.dp_size} | PRECISIONS[self.precision]
        return line.get("benchmark") == "serving" and {name: line.get(name) for name in asked} == asked


# As a server tells of it, and is asked for it where it is not the default.
PRECISIONS = {
    "bf16": {"quantization": None, "kv_cache_dtype": "auto"},
    "fp8": {"quantization": "fp8", "kv_cache_dtype": "auto"},
    "fp8-kv8": {"quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"},
}
PHASES = {
    "one": (Setup("bf16", card=0), Setup("fp8", card=1)),
    "one-kv8": (Setup("bf16", card=0), Setup("fp8-kv8", card=1)),
    "tp2-bf16": (Setup("bf16", tp_size=2),),
    "dp2-bf16": (Setup("bf16", dp_size=2),),
    "tp2-fp8": (Setup("fp8", tp_size=2),),
    "dp2-fp8": (Setup("fp8", dp_size=2),),
    "tp2-kv8": (Setup("fp8-kv8", tp_size=2),),
}
_BALANCE = "SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"
_CHECKS = ("parity", "broadcast")


def main(argv: Sequence[str] | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if something failed, 2 if time ran out."""
    args = _parser().parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    try:
        return run.all()
    finally:
        lines = run.lines()
        print(tables(lines) if lines else "no lines", flush=True)
        if found := shares(lines):
            print(f"\n{table(found, [(key, key) for key in found[0]])}", flush=True)


class Run:
    """Phases, then checks, up to one common deadline."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._lines = args.folder / LINES
        self._deadline = time.monotonic() + args.total_seconds
        os.environ.setdefault(ADMIN_KEY_VARIABLE, secrets.token_hex())  # the programs flush the prefix cache

    def lines(self) -> list[dict[str, Any]]:
        return read_lines(self._lines) if self._lines.exists() else []

    def all(self) -> int:
        all_well = True
        for name in self._args.phases:
            setups = PHASES[name][:1] if self._args.dry_run else PHASES[name]
            if self._is_done(setups):
                print(f"== {name}: its lines are there", flush=True)
            elif self._seconds_left() < _LEAST_S and not self._args.dry_run:
                print(f"== {name}: no time left; run the same command again", flush=True)
                return 2
            else:
                all_well &= self._phase(setups)
        if self._args.checks and not self._args.dry_run:
            if self._seconds_left() < _LEAST_S:
                print("== no time left for the checks; run the same command again", flush=True)
                return 2
            all_well &= self._checks()
        return 0 if all_well else 1

    def _checks(self) -> bool:
        """The broadcast alone; then what times nothing, side by side."""
        done = {line["benchmark"] for line in self.lines()}
        args, all_well = self._args, True
        os.environ.setdefault(_BALANCE, "0")  # of the engine on two ranks, whose first card has another one's memory
        if "tp_broadcast" not in done and "broadcast" in args.checks:
            command = module_command("tp_broadcast", f"--out {self._lines}")
            all_well &= run_together([self._program("tp_broadcast", command, _BROADCAST_S)])
        if "parity" not in done and "parity" in args.checks:
            common = f"{args.tiny_path} --golden {args.golden} --codec-dtype float32 --out {self._lines}"
            programs = []
            for tp_size in (1, 2):
                command = module_command("parity", f"{common} --tp-size {tp_size}")
                programs.append(self._program(f"parity-tp{tp_size}", command, _PARITY_S))
            all_well &= run_together(programs)
        return all_well

    def _phase(self, setups: Sequence[Setup]) -> bool:
        try:
            with ExitStack() as stack:
                # Side by side: a start is a minute of imports.
                servers = [(setup, self._server(setup)) for setup in setups]
                _enter_all(stack, [server for _, server in servers])
                all_well = run_together(
                    [self._load(setup, server) for setup, server in servers if self._seconds_left() > 1]
                )
                for setup, server in servers:
                    if setup.tp_size > 1:
                        record(self._lines, self._apart(setup, server))
        except ServerFailed as failed:
            print(failed, flush=True)
            return False
        return all_well

    def _server(self, setup: Setup) -> LocalServer:
        args = self._args
        arguments = ["--tp-size", str(setup.tp_size), "--dp-size", str(setup.dp_size), "--enable-metrics"]
        arguments += ["--admin-api-key", os.environ[ADMIN_KEY_VARIABLE], *args.server_args.split()]
        arguments += ["--check-ranks"] if setup.tp_size > 1 else []
        env = {}
        if args.dry_run:
            env = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "OMP_NUM_THREADS": "1"}
        else:
            most = str(max(args.concurrency))
            arguments += ["--max-running-requests", most, "--cuda-graph-max-bs-decode", most, "--dtype", "bfloat16"]
            told = PRECISIONS[setup.precision]
            arguments += ["--quantization", told["quantization"]] if told["quantization"] else []
            arguments += ["--kv-cache-dtype", str(told["kv_cache_dtype"])]
            if setup.card is not None:
                env = {"CUDA_VISIBLE_DEVICES": str(setup.card)}
        return LocalServer(
            args.tiny_path if args.dry_run else args.model_path,
            extra_args=arguments,
            env=env,
            log=args.folder / f"{setup.name}.server.log",
            start_timeout_s=max(1.0, min(args.start_timeout, self._seconds_left())),
            command=SGLANG_SERVE,
        )

    def _load(self, setup: Setup, server: LocalServer) -> Program:
        args = self._args
        arguments = f"--url {server.url} --out {self._lines} --one-card {self._lines} --time-limit 45 "
        arguments += f"--audio-seconds {args.audio_seconds:g} --rounds {args.rounds} --least-requests 4 --concurrency "
        arguments += " ".join(map(str, args.concurrency))
        arguments += " --allow-silence" if args.dry_run else ""
        return self._program(f"load-{setup.name}", module_command("serving", arguments), _LOAD_S)

    def _apart(self, setup: Setup, server: LocalServer) -> Iterator[dict[str, Any]]:
        """How many rows the second rank drew otherwise than the first, of all that this server has drawn."""
        with httpx.Client(base_url=server.url, timeout=30) as client:
            metrics = client.get("/metrics").text.splitlines()
        apart = [float(line.split()[-1]) for line in metrics if line.startswith(_APART)]
        frames = [float(line.split()[-1]) for line in metrics if line.startswith("moss_ttsd:audio_frames_total")]
        yield {
            "benchmark": "several_gpus",
            "check": "rows of all ranks = the first one's",
            "tp_size": setup.tp_size,
            **PRECISIONS[setup.precision],
            "decisions": sum(frames),
            "differ": sum(apart),
        }

    def _is_done(self, setups: Sequence[Setup]) -> bool:
        lines = self.lines()
        return all(
            any(setup.is_of(line) and line["concurrency"] == n for line in lines)
            for setup in setups
            for n in self._args.concurrency
        )

    def _program(self, name: str, command: list[str], limit_s: float) -> Program:
        return Program(name, command, self._args.folder / f"{name}.log", max(1.0, min(limit_s, self._seconds_left())))

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()


def shares(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the broadcast alone takes of a step, for each load of two ranks; a step gives every client a frame."""
    alone = {line["running"]: line["broadcast_us"] for line in lines if line["benchmark"] == "tp_broadcast"}
    found = []
    for line in lines:
        n = line.get("concurrency")
        if line["benchmark"] == "serving" and line.get("tp_size") == 2 and isinstance(n, int) and n in alone:
            rate = line["steady_audio_s_per_s"] or line["audio_s_per_s"]
            step_us = n * FRAME_SECONDS / rate * 1e6
            share = {"step_us": step_us, "broadcast_us": alone[n], "share": alone[n] / step_us}
            precision = {name: line.get(name) for name in PRECISIONS["bf16"]}
            found.append({**precision, "running": n, **share})
    return found


def _enter_all(stack: ExitStack, servers: Sequence[LocalServer]) -> None:
    """Start servers side by side; all are stopped with `stack`, also those beside one that fails."""
    with ThreadPoolExecutor(len(servers)) as pool:
        starts = [pool.submit(server.__enter__) for server in servers]
        for server in servers:
            stack.callback(server.stop)
    for start in starts:
        start.result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), metavar="PHASE")
    parser.add_argument("--checks", nargs="*", choices=_CHECKS, default=list(_CHECKS), metavar="CHECK")
    parser.add_argument("--folder", type=Path, default=Path("several"), help="for lines and logs (%(default)s)")
    parser.add_argument("--tiny-path", type=Path, default=Path("tiny"), help="the golden checkpoints, fused")
    parser.add_argument("--model-path", type=Path, default=Path("made"), help="a fused checkpoint of the real shapes")
    add_golden_argument(parser)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128, 256])
    parser.add_argument("--audio-seconds", type=float, default=20.0, help="of a request (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="requests of each client (%(default)s)")
    parser.add_argument("--total-seconds", type=float, default=540.0, help="for everything (%(default)s)")
    parser.add_argument("--start-timeout", type=float, default=240.0, help="seconds until a server is ready")
    parser.add_argument("--server-args", default="", help="more arguments for all servers, one string")
    parser.add_argument("--dry-run", action="store_true", help="without cards, on the tiny checkpoint")
    return parser


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
