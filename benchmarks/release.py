"""What a release is held against, in one run on one GPU: parity, equal paths, page sizes, speed beside plain SGLang.

    python -m sglang_moss.fuse --model-path tests/golden/ttsd --codec-model-path tests/golden/codec --save-path tiny
    python -m sglang_moss.benchmarks.random_checkpoint --save-path made
    python -m sglang_moss.benchmarks.release --tiny-path tiny --model-path made --folder release

Parts that only compare run side by side, on the tiny checkpoint; then those that are timed run one after the other, on
the checkpoint of the real shapes. Each is a program with a limit in seconds, and what it has recorded by then is kept:
lines of all parts go to `release.jsonl` as they come, what a part prints to `PART.log`. A folder may be filled by
several runs (`--parts`); tables of all its lines come last.
"""

import argparse
import os
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument
from .runs.gpu_memory import gpu_memory_mib
from .runs.part_process import Program, module_command, run_together
from .runs.record import read_lines, record
from .runs.release_parts import LINES, PARTS, STANDARD, Kind, Part
from .runs.release_tables import tables
from .serving import ADMIN_KEY_VARIABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if a part failed or was stopped."""
    args = _parser().parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        all_well = Release(args).run([PARTS[name] for name in args.parts])
    finally:  # also of a run that is cut short
        lines = args.folder / LINES
        print(tables(read_lines(lines)) if lines.exists() else "no lines", flush=True)
    return 0 if all_well else 1


class Release:
    """Runs parts with the arguments of the command line, up to one common deadline."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._deadline = time.monotonic() + args.total_seconds
        self._limits = _limits(args.limit)
        self._server_args = shlex.split(args.server_args)

    def run(self, parts: Sequence[Part]) -> bool:
        """Run them; whether all went well."""
        kinds = {kind: [part for part in parts if part.kind is kind] for kind in Kind}
        all_well = self._together(kinds[Kind.COMPARES])
        for part in kinds[Kind.TIMES]:
            all_well &= self._together([part], self._args.ceiling_server_args)
        if kinds[Kind.TIMES_SERVER]:
            all_well &= self._on_server(kinds[Kind.TIMES_SERVER])
        return all_well

    def _on_server(self, parts: Sequence[Part]) -> bool:
        began = time.monotonic()
        key = os.environ[ADMIN_KEY_VARIABLE] = secrets.token_hex()  # the programs flush the prefix cache
        server = LocalServer(
            self._args.model_path,
            extra_args=[*self._server_args, "--admin-api-key", key],
            start_timeout_s=max(1.0, min(self._args.start_timeout, self._seconds_left())),
            log=self._args.folder / "server.log",
            command=SGLANG_SERVE,
        )
        all_well = True
        try:
            with server:
                line = {"check": "ready", "seconds": time.monotonic() - began, "gpu_memory_mib": gpu_memory_mib()}
                record(self._args.folder / LINES, [line])
                for part in parts:
                    all_well &= self._together([part], url=server.url)
        except ServerFailed as failed:
            print(failed, flush=True)
            return False
        return all_well

    def _together(self, parts: Sequence[Part], server_args: str = "", url: str = "") -> bool:
        if parts and self._seconds_left() < 1:
            print(f"== no time left for {', '.join(part.name for part in parts)}", flush=True)
            return False
        return run_together([self._program(part, server_args, url) for part in parts])

    def _program(self, part: Part, server_args: str, url: str) -> Program:
        args = self._args
        arguments = part.arguments.format(
            tiny=args.tiny_path,
            model=args.model_path,
            golden=args.golden,
            margins=args.margins,
            lines=args.folder / LINES,
            folder=args.folder,
            url=url,
        )
        command = module_command(part.module, arguments)
        command += ["--server-args", server_args] if server_args else []
        limit_s = min(self._limits.get(part.name, part.limit_s), self._seconds_left())
        return Program(part.name, command, args.folder / f"{part.name}.log", limit_s)

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()


def _limits(pairs: Sequence[str]) -> dict[str, float]:
    limits = {}
    for pair in pairs:
        name, _, seconds = pair.partition("=")
        if name not in PARTS:
            raise SystemExit(f"error: --limit {pair}: parts are {', '.join(PARTS)}")
        limits[name] = float(seconds)
    return limits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    standard = [part.name for part in STANDARD]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=standard, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("release"), help="for lines and logs (%(default)s)")
    parser.add_argument("--tiny-path", type=Path, default=Path("tiny"), help="the golden checkpoints, fused")
    parser.add_argument("--model-path", type=Path, default=Path("made"), help="a fused checkpoint of the real shapes")
    add_golden_argument(parser)
    parser.add_argument("--margins", type=Path, default=Path("benchmarks/results/margins_fp32.npz"))
    parser.add_argument("--limit", nargs="+", default=[], metavar="PART=SECONDS", help="other limits of parts")
    parser.add_argument("--total-seconds", type=float, default=570.0, help="for everything (%(default)s)")
    parser.add_argument("--start-timeout", type=float, default=240.0, help="seconds until our server is ready")
    parser.add_argument("--server-args", default="--dtype bfloat16", help="more arguments for our server, one string")
    parser.add_argument("--ceiling-server-args", default="--dtype bfloat16", help="likewise, for the plain engine")
    return parser


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
