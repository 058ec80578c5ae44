"""The plain engine, then our server at the real shapes under every load: one run on one GPU, a table at the end.

    python -m sglang_moss.benchmarks.h200 --folder results --parts ceiling whole stream --total-seconds 570

Each part ends after its limit in seconds, and lines recorded by then are kept. Weights are SGLang's dummy ones, whose
sound is silence, unless `--model-path` names a checkpoint (`random_checkpoint`), with `--load-args "" --bench-args ""`.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from .gpu_memory import gpu_memory_mib
from .record import read_lines, record
from .shapes import write_checkpoint

_BENCHMARKS = "sglang_moss.benchmarks"
_CEILING = "ceiling.jsonl"
_LINES = "serving.jsonl"
_STEPS = "steps.jsonl"
_SERVER = "server.jsonl"


@dataclass(frozen=True)
class Part:
    """A measurement in a process of its own; `{folder}`, `{model}` and `{url}` are filled in."""

    name: str
    limit_s: float
    module: str
    arguments: str


_BENCH = "--url {url} --ceiling {folder}/ceiling.jsonl --out {folder}/serving.jsonl --time-limit 60"
_PARTS = {
    part.name: part
    for part in (
        Part("ceiling", 200, "engine_ceiling", "{model} --out {folder}/ceiling.jsonl --spread 0 0.5"),
        Part("whole", 150, "serving", _BENCH + " --concurrency 1 16 64 128"),
        Part("stream", 100, "serving", _BENCH + " --concurrency 1 16 64 --stream"),
        Part("spread", 150, "serving", _BENCH + " --concurrency 16 64 128 --spread 0.5"),
        Part("spread-stream", 150, "serving", _BENCH + " --concurrency 16 64 128 --spread 0.5 --stream"),
        Part("uncached", 40, "serving", _BENCH + " --concurrency 1 --stream --uncached-references"),
        Part("short", 60, "serving", _BENCH + " --workload short --concurrency 1 16 64 --stream"),
        Part("open", 120, "serving", _BENCH + " --rate 4 8 12 --duration 25 --stream"),
        Part("growth", 300, "serving", _BENCH + " --concurrency 64 64 64 64 --spread 0.5 --rounds 10"),
        Part("profile", 60, "step_profile", "--url {url} --running 1 64 --out {folder}/steps.jsonl"),
        Part("long", 150, "serving", _BENCH + " --workload long --concurrency 1 --requests 1"),
        Part("session", 400, "long_session", "--url {url} --frames 45000 --out {folder}/long_session.jsonl"),
    )
}
_COLUMNS = (
    ("workload", "workload"),
    ("spread", "spread"),
    ("stream", "stream"),
    ("uncached_references", "uncached"),
    ("concurrency", "at once"),
    ("rate", "requests/s"),
    ("audio_s_per_s", "audio-s/s"),
    ("engine_ratio", "of engine"),
    ("engine_decode_ratio", "of decode"),
    ("ttfa_ms_p50", "TTFA ms"),
    ("rtf_p50", "RTF"),
    ("gapless_share", "gapless"),
    ("n_failed", "failed"),
    ("gpu_memory_mib", "GPU MiB"),
)


def main() -> int:
    args = _parser().parse_args()
    deadline = time.monotonic() + args.total_seconds
    args.folder.mkdir(parents=True, exist_ok=True)
    limits = {**{name: part.limit_s for name, part in _PARTS.items()}, **_limits(args.limit)}
    with tempfile.TemporaryDirectory() as made:
        model = args.model_path or write_checkpoint(Path(made) / "model", args.golden)
        if "ceiling" in args.parts:
            extra = ["--server-args", args.ceiling_server_args]
            _run(args, _PARTS["ceiling"], model, "", limits, deadline, extra)
        if served := [_PARTS[name] for name in args.parts if name != "ceiling"]:
            _serve_and_run(args, served, model, limits, deadline)
    print(table(_lines(args.folder / _CEILING) + _lines(args.folder / _LINES)), flush=True)
    return 0


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines' main figures, aligned."""
    rows = [["benchmark", *(title for _, title in _COLUMNS)]]
    rows += [[str(line["benchmark"]), *(_shown(line.get(key)) for key, _ in _COLUMNS)] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _serve_and_run(
    args: argparse.Namespace, parts: Sequence[Part], model: Path, limits: dict[str, float], deadline: float
) -> None:
    began = time.monotonic()
    server = LocalServer(
        model,
        extra_args=[*shlex.split(args.load_args), *shlex.split(args.server_args)],
        start_timeout_s=min(args.start_timeout, max(1.0, deadline - began)),
        log=args.folder / "server.log",
        command=SGLANG_SERVE,
    )
    try:
        with server:
            line = {"check": "ready", "seconds": time.monotonic() - began, "gpu_memory_mib": gpu_memory_mib()}
            record(args.folder / _SERVER, [line])
            for part in parts:
                extra = shlex.split(args.bench_args) if part.module == "serving" else []
                _run(args, part, model, server.url, limits, deadline, extra)
    except ServerFailed as failed:
        print(failed, flush=True)


def _run(
    args: argparse.Namespace,
    part: Part,
    model: Path,
    url: str,
    limits: dict[str, float],
    deadline: float,
    extra: Sequence[str] = (),
) -> None:
    limit_s = min(limits[part.name], deadline - time.monotonic())
    if limit_s < 1:
        print(f"== {part.name}: no time left", flush=True)
        return
    filled = part.arguments.format(folder=args.folder, model=model, url=url)
    command = [sys.executable, "-m", f"{_BENCHMARKS}.{part.module}", *shlex.split(filled), *extra]
    if part.module == "serving" and not (args.folder / _CEILING).exists():
        at = command.index("--ceiling")
        del command[at : at + 2]
    print(f"== {part.name}, at most {limit_s:.0f} s: {shlex.join(command[1:])}", flush=True)
    began = time.monotonic()
    with _ended(subprocess.Popen(command)) as process:
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            print(f"== {part.name}: stopped at its limit", flush=True)
    print(f"== {part.name}: status {process.returncode} after {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """End the process with the block; interrupted, so that a server that it has started is stopped by it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path) if path.exists() else []


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _limits(pairs: Sequence[str]) -> dict[str, float]:
    limits = {}
    for pair in pairs:
        name, _, seconds = pair.partition("=")
        if name not in _PARTS:
            raise SystemExit(f"error: --limit {pair}: parts are {', '.join(_PARTS)}")
        limits[name] = float(seconds)
    return limits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=["ceiling", "whole", "stream", "uncached"])
    parser.add_argument("--folder", type=Path, default=Path("h200"), help="for results and logs (%(default)s)")
    parser.add_argument("--golden", type=Path, default=Path("tests/golden"))
    parser.add_argument("--model-path", type=Path, help="a fused checkpoint, instead of the real shapes made up")
    parser.add_argument("--limit", nargs="+", default=[], metavar="PART=SECONDS", help="other limits of parts")
    parser.add_argument("--total-seconds", type=float, default=570.0, help="for everything (%(default)s)")
    parser.add_argument("--start-timeout", type=float, default=240.0, help="seconds until our server is ready")
    parser.add_argument("--load-args", default="--load-format dummy --dtype bfloat16")
    parser.add_argument("--bench-args", default="--allow-silence", help="more arguments for every load")
    parser.add_argument("--server-args", default="", help="more arguments for our server, in one string")
    parser.add_argument("--ceiling-server-args", default="--dtype bfloat16", help="likewise, for the plain engine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
