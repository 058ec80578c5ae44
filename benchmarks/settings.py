"""Settings of a server beside each other on one card: how many listen at a promise, and how much audio it makes.

    python -m sglang_moss.benchmarks.random_checkpoint --save-path made
    python -m sglang_moss.benchmarks.settings --model-path made --folder settings
    python -m sglang_moss.benchmarks.settings --model-path made --folder settings --settings plain default fp8-kv8

Each setting is a server of its own, with `first_sound` (where its milliseconds go), `serving` (streams in a closed
loop) and `listeners` (the largest load at which the promise is kept) on it; `plain` is the text model underneath on
stock SGLang, the ceiling of the last two. `--measures` names others: `first-frames` (a first event of 4 frames and of
one, clips sent along and named by path), `whole` (answers), `profile` (where a step's time goes), `loads` (whether the
promise is kept at those of `--loads`). A line says by `label` which setting it is of. The time is bounded: what has no
time left is done by the same command run again, which leaves out what is there. Cards of one host may be used side by
side, with a folder and a `CUDA_VISIBLE_DEVICES` each.

To compare with another release, unpack its wheel into a folder: `--package FOLDER --package-commit COMMIT` serves with
it, and measures with this one; labels are then SETTING@COMMIT.
"""

import argparse
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from .runs.exiting import exit_on_sigterm
from .runs.gpu_memory import gpu_memory_mib
from .runs.part_process import Program, module_command, run_together
from .runs.record import COMMIT_VARIABLE, read_lines, record
from .runs.release_tables import tables
from .runs.server_settings import EVERY, PLAIN, SETTINGS
from .runs.setting_measures import DEFAULT_MEASURES, MEASURES, Measure, at_load, clips_of
from .serving import ADMIN_KEY_VARIABLE

LINES = "settings.jsonl"
_LOADS = "loads"


def main(argv: Sequence[str] | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if something failed, 2 if time ran out."""
    args = _parser().parse_args(argv)
    if (args.package is None) != (args.package_commit is None):
        raise SystemExit("error: --package and --package-commit go together")
    if args.package is not None and PLAIN in args.settings:
        raise SystemExit(f"error: --package: {PLAIN} has nothing of it; measure it by itself")
    if _LOADS in args.measures and not args.loads:
        raise SystemExit(f"error: --measures {_LOADS}: how many listeners? say --loads N [N ...]")
    if not (args.model_path / "config.json").is_file():
        raise SystemExit(f"error: --model-path {args.model_path}: no checkpoint; `random_checkpoint` makes one")
    clips_of(args.folder).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(ADMIN_KEY_VARIABLE, secrets.token_hex())  # the programs flush the prefix cache
    if args.package_commit is not None:
        os.environ[COMMIT_VARIABLE] = args.package_commit
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
        self._import_path = _import_path(args.package)
        self._is_late = False  # something was left out for want of time

    def lines(self) -> list[dict[str, Any]]:
        return read_lines(self._lines) if self._lines.exists() else []

    def all(self) -> int:
        """Measure what is missing; the exit status."""
        all_well = True
        for name in self._args.settings:
            missing = {title: m for title, m in self._measures(name).items() if self._is_missing(self._label(name), m)}
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

    def _measures(self, name: str) -> dict[str, Measure]:
        """What is to be measured of a setting, by title."""
        found: dict[str, Measure] = {}
        for measure in self._args.measures:
            if measure == _LOADS:
                found |= {f"load {offered:g}": at_load(offered) for offered in self._args.loads}
            else:
                found[measure] = MEASURES[measure]
        if name != PLAIN:
            return found
        return {title: measure.ceiling for title, measure in found.items() if measure.ceiling is not None}

    def _ceiling(self, measures: dict[str, Measure]) -> bool:
        args, all_well = self._args, True
        for title, measure in measures.items():
            log = args.folder / f"{PLAIN}.{title}.server.log"
            arguments = [str(args.model_path), "--server-args", args.server_args, "--log", str(log)]
            all_well &= self._run(PLAIN, title, measure, arguments, args.plain_seconds)
        return all_well

    def _on_server(self, name: str, measures: dict[str, Measure]) -> bool:
        args, label = self._args, self._label(name)
        began, all_well = time.monotonic(), True
        arguments = [*shlex.split(args.server_args), *EVERY, *shlex.split(SETTINGS[name])]
        arguments += ["--reference-root", str(clips_of(args.folder))]
        server = LocalServer(
            args.model_path,
            extra_args=[*arguments, "--admin-api-key", os.environ[ADMIN_KEY_VARIABLE]],
            env=self._import_path,
            start_timeout_s=max(1.0, min(args.start_timeout, self._seconds_left())),
            log=args.folder / f"{label}.server.log",
            command=SGLANG_SERVE,
        )
        try:
            with server:
                ready = {"seconds": time.monotonic() - began, "gpu_memory_mib": gpu_memory_mib()}
                record(self._lines, [{"check": "ready", "label": label, "server_args": SETTINGS[name], **ready}])
                for title, measure in measures.items():
                    more = ["--url", server.url, "--label", label]
                    more += ["--allow-silence"] if args.allow_silence and measure.can_be_silent else []
                    all_well &= self._run(label, title, measure, more)
        except ServerFailed as failed:
            print(failed, flush=True)
            return False
        return all_well

    def _run(
        self, label: str, title: str, measure: Measure, arguments: Sequence[str], more_seconds: float = 0.0
    ) -> bool:
        """One program within its time and the time that is left; whether it went well."""
        args, left = self._args, self._seconds_left()
        if left < max(args.least_seconds, measure.least_s):
            print(f"== {label}: no time left for {title}; run the same command again", flush=True)
            self._is_late = True
            return False
        limit_s = min(getattr(args, measure.limit) + more_seconds, left)
        command = [*module_command(measure.program, ""), *arguments, "--out", str(self._lines)]
        command += measure.arguments(args, limit_s)
        log = args.folder / f"{label}.{title.replace(' ', '-')}.log"
        went_well = run_together([Program(f"{label} {title}", command, log, limit_s)])
        return went_well or (measure.may_fail and not self._is_missing(label, measure))

    def _is_missing(self, label: str, measure: Measure) -> bool:
        lines = [line for line in self.lines() if line["benchmark"] == measure.benchmark]
        return bool(measure.missing(self._args, [line for line in lines if line.get("label", PLAIN) == label]))

    def _label(self, name: str) -> str:
        return name if self._args.package is None else f"{name}@{self._args.package_commit}"

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()


def _import_path(package: Path | None) -> dict[str, str]:
    """Variables of a server that imports from a folder before all others.

    Raises:
        SystemExit: it would import another release nevertheless.
    """
    if package is None:
        return {}
    path = os.pathsep.join(filter(None, [str(package.resolve()), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}  # the second: not from the folder in which this was started
    command = [sys.executable, "-c", "import sglang_moss; print(sglang_moss.__file__)"]
    found = subprocess.run(command, env=os.environ | env, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_relative_to(package.resolve()):
        raise SystemExit(f"error: --package {package}: a server would import {found or 'no sglang_moss'} nevertheless")
    return env


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [PLAIN, *SETTINGS]
    parser.add_argument(
        "--settings", nargs="+", choices=known, default=known[:4], metavar="SETTING", help=", ".join(known)
    )
    measures = [*MEASURES, _LOADS]
    parser.add_argument("--measures", nargs="+", choices=measures, default=list(DEFAULT_MEASURES), help="(%(default)s)")
    parser.add_argument("--loads", type=float, nargs="+", default=[], help="listeners offered, of `loads`")
    parser.add_argument("--folder", type=Path, default=Path("settings"), help="for lines and logs (%(default)s)")
    parser.add_argument("--model-path", type=Path, default=Path("made"), help="a fused checkpoint of the real shapes")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128], help="of `streams`")
    parser.add_argument("--audio-seconds", type=float, default=30.0, help="of a request (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of `streams`: requests of each client (%(default)s)")
    parser.add_argument("--listeners-args", default="", help="more arguments of `listeners`, one string")
    parser.add_argument("--listeners-seconds", type=float, default=450.0, help="for a search (%(default)s)")
    parser.add_argument("--load-seconds", type=float, default=110.0, help="for one of `--loads` (%(default)s)")
    parser.add_argument("--streams-seconds", type=float, default=150.0, help="for any other measure (%(default)s)")
    parser.add_argument(
        "--plain-seconds",
        type=float,
        default=240.0,
        help="more for the plain model, whose programs start it, and wait for what it compiles (%(default)s)",
    )
    parser.add_argument("--total-seconds", type=float, default=3600.0, help="for everything (%(default)s)")
    parser.add_argument("--least-seconds", type=float, default=60.0, help="nothing is begun with less (%(default)s)")
    parser.add_argument("--start-timeout", type=float, default=240.0, help="seconds until a server is ready")
    parser.add_argument("--server-args", default="--dtype bfloat16", help="of all servers, one string")
    parser.add_argument("--allow-silence", action="store_true", help="let silent answers pass; for tiny weights")
    parser.add_argument("--package", type=Path, help="folder of another release, to serve with")
    parser.add_argument("--package-commit", help="its commit")
    return parser


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
