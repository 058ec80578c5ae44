"""Settings of a server beside each other on one card: how many listen at a promise, and how much audio it makes.

    python -m sglang_moss.benchmarks.random_checkpoint --save-path made
    python -m sglang_moss.benchmarks.settings --model-path made --folder settings
    python -m sglang_moss.benchmarks.settings --model-path made --folder settings --settings plain default fp8-kv8

Each setting is a server of its own, with `first_sound` (where its milliseconds go), `serving` (streams in a closed
loop) and `listeners` (the largest load at which the promise is kept) on it; `plain` is the text model underneath on
stock SGLang, the ceiling of the last two. A line says by `label` which setting it is of. The time is bounded: what has
no time left is done by the same command run again, which leaves out what is there. Cards of one host may be used side
by side, with a folder and a `CUDA_VISIBLE_DEVICES` each.
"""

import argparse
import os
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from .runs.exiting import exit_on_sigterm
from .runs.gpu_memory import gpu_memory_mib
from .runs.part_process import Program, module_command, run_together
from .runs.record import read_lines, record
from .runs.release_tables import tables
from .serving import ADMIN_KEY_VARIABLE

LINES = "settings.jsonl"
_END_S = 10.0  # of a search, for what stands around it
_FP8 = "--quantization fp8 --kv-cache-dtype fp8_e4m3"
_MANY = "--max-running-requests 256 --codec-slots 293 --cuda-graph-max-bs-decode 256"
_FUSED = "--decoding-layers fused"
PLAIN = "plain"
SETTINGS = {
    "default": "",
    "running-128": "--max-running-requests 128",
    # As many slots as there were on 80 GB before every stream of 128 requests had one.
    "slots-100": "--codec-slots 100 --max-running-requests 128",
    "yield-48": "--yield-above 48",
    "yield-96": "--yield-above 96",
    "eager-prefill": "--disable-prefill-cuda-graph",
    "encoder-ieee": "--codec-encoder-precision ieee",
    "interval-1": "--prefill-decode-interval 1",
    "interval-4": "--prefill-decode-interval 4",
    "many": _MANY,
    "fused": _FUSED,
    "yield-96-of-256": f"--yield-above 96 {_MANY}",
    "flashinfer": "--attention-backend flashinfer",
    "triton": "--attention-backend triton",
    "page-64": "--page-size 64",
    "fp8": "--quantization fp8",
    "fp8-kv8": _FP8,
    "fp8-kv8-many": f"{_FP8} {_MANY}",
    "fp8-kv8-many-fused": f"{_FP8} {_MANY} {_FUSED}",
    "fp8-kv8-flashinfer": f"{_FP8} --attention-backend flashinfer",
    "fp8-kv8-triton": f"{_FP8} --attention-backend triton",
    "fp8-kv8-yield-96-of-256": f"{_FP8} --yield-above 96 {_MANY}",
}
_MOST_QUEUED = ("--max-queued-speech", "4096")  # a load that is too large is to be measured, not refused


@dataclass(frozen=True)
class Measure:
    """A program on a server of ours, and the one that is its ceiling, if any; `benchmark` of the lines of each."""

    program: str
    lines: str
    ceiling: str | None = None
    ceiling_lines: str | None = None


MEASURES = {
    "first-sound": Measure("first_sound", "first_sound"),
    "streams": Measure("serving", "serving", "engine_ceiling", "engine_ceiling"),
    "listeners": Measure("listeners", "listeners", "engine_listeners", "listeners"),
}
_N_FIRST = 4  # cases: voices that are known and new, one and many at once
_FIRST_SOUND = ("--audio-seconds", "4", "--rounds", "3", "--least-requests", "12")


def main(argv: Sequence[str] | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if something failed, 2 if time ran out."""
    args = _parser().parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(ADMIN_KEY_VARIABLE, secrets.token_hex())  # the programs flush the prefix cache
    run = Run(args)
    try:
        return run.all()
    finally:
        lines = run.lines()
        print(tables(lines) if lines else "no lines", flush=True)


class Run:
    """Settings one after the other, up to one common deadline."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._lines = args.folder / LINES
        self._deadline = time.monotonic() + args.total_seconds
        self._is_late = False  # something was left out for want of time

    def lines(self) -> list[dict[str, Any]]:
        return read_lines(self._lines) if self._lines.exists() else []

    def all(self) -> int:
        """Measure what is missing; the exit status."""
        all_well = True
        for name in self._args.settings:
            missing = [measure for measure in self._args.measures if self._is_missing(name, measure)]
            if not missing:
                print(f"== {name}: its lines are there", flush=True)
                continue
            if self._seconds_left() < self._args.least_seconds:
                print(f"== {name}: no time left; run the same command again", flush=True)
                return 2
            measured = self._ceiling(missing) if name == PLAIN else self._on_server(name, missing)
            all_well &= measured
            if self._is_late:
                return 2
        return 0 if all_well else 1

    def _ceiling(self, measures: Sequence[str]) -> bool:
        args, all_well = self._args, True
        for measure in measures:
            log = args.folder / f"{PLAIN}.{measure}.server.log"
            arguments = [str(args.model_path), "--server-args", args.server_args, "--log", str(log)]
            all_well &= self._run(PLAIN, measure, str(MEASURES[measure].ceiling), arguments)
        return all_well

    def _on_server(self, name: str, measures: Sequence[str]) -> bool:
        args = self._args
        began, all_well = time.monotonic(), True
        arguments = [*shlex.split(args.server_args), *_MOST_QUEUED, *shlex.split(SETTINGS[name])]
        server = LocalServer(
            args.model_path,
            extra_args=[*arguments, "--admin-api-key", os.environ[ADMIN_KEY_VARIABLE]],
            start_timeout_s=max(1.0, min(args.start_timeout, self._seconds_left())),
            log=args.folder / f"{name}.server.log",
            command=SGLANG_SERVE,
        )
        try:
            with server:
                ready = {"seconds": time.monotonic() - began, "gpu_memory_mib": gpu_memory_mib()}
                record(self._lines, [{"check": "ready", "label": name, "server_args": SETTINGS[name], **ready}])
                for measure in measures:
                    more = ["--url", server.url, "--label", name]
                    more += ["--allow-silence"] if args.allow_silence and measure != "first-sound" else []
                    all_well &= self._run(name, measure, MEASURES[measure].program, more)
        except ServerFailed as failed:
            print(failed, flush=True)
            return False
        return all_well

    def _run(self, name: str, measure: str, program: str, arguments: Sequence[str]) -> bool:
        """One program within its time and the time that is left; whether it went well."""
        args, left = self._args, self._seconds_left()
        if left < args.least_seconds:
            print(f"== {name}: no time left for {measure}; run the same command again", flush=True)
            self._is_late = True
            return False
        command = [*module_command(program, ""), *arguments, "--out", str(self._lines)]
        limit_s = min(args.listeners_seconds if measure == "listeners" else args.streams_seconds, left)
        if measure == "first-sound":
            command += _FIRST_SOUND
        elif measure == "listeners":
            command += ["--audio-seconds", f"{args.audio_seconds:g}", *shlex.split(args.listeners_args)]
            command += ["--total-seconds", f"{limit_s - _END_S:.0f}", *(["--label", name] if name == PLAIN else [])]
        else:
            command += ["--audio-seconds", f"{args.audio_seconds:g}", "--rounds", str(args.rounds)]
            command += ["--least-requests", "4", "--concurrency", *map(str, args.concurrency)]
            command += ["--stream"] if name != PLAIN else []
        log = args.folder / f"{name}.{measure}.log"
        return run_together([Program(f"{name} {measure}", command, log, limit_s)])

    def _is_missing(self, name: str, measure: str) -> bool:
        found = MEASURES[measure]
        benchmark = found.ceiling_lines if name == PLAIN else found.lines
        lines = [line for line in self.lines() if line["benchmark"] == benchmark and line.get("label", PLAIN) == name]
        if measure == "streams":
            return not {line["concurrency"] for line in lines} >= set(self._args.concurrency)
        if measure == "first-sound":
            return benchmark is not None and len({(line["voices"], line["concurrency"]) for line in lines}) < _N_FIRST
        return not lines

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [PLAIN, *SETTINGS]
    parser.add_argument(
        "--settings", nargs="+", choices=known, default=known[:4], metavar="SETTING", help=", ".join(known)
    )
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES), help="(%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("settings"), help="for lines and logs (%(default)s)")
    parser.add_argument("--model-path", type=Path, default=Path("made"), help="a fused checkpoint of the real shapes")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128], help="of `streams`")
    parser.add_argument("--audio-seconds", type=float, default=30.0, help="of a request (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of `streams`: requests of each client (%(default)s)")
    parser.add_argument("--listeners-args", default="", help="more arguments of `listeners`, one string")
    parser.add_argument("--listeners-seconds", type=float, default=450.0, help="for a search (%(default)s)")
    parser.add_argument("--streams-seconds", type=float, default=150.0, help="for the closed loops (%(default)s)")
    parser.add_argument("--total-seconds", type=float, default=3600.0, help="for everything (%(default)s)")
    parser.add_argument("--least-seconds", type=float, default=60.0, help="nothing is begun with less (%(default)s)")
    parser.add_argument("--start-timeout", type=float, default=240.0, help="seconds until a server is ready")
    parser.add_argument("--server-args", default="--dtype bfloat16", help="of all servers, one string")
    parser.add_argument("--allow-silence", action="store_true", help="let silent answers pass; for tiny weights")
    return parser


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
