"""Result lines: what was measured, by which command, on what, from which commit, when."""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

COMMIT_VARIABLE = "SGLANG_MOSS_COMMIT"  # for a copy of the sources without its history


def record(
    out: Path, lines: Iterable[dict[str, Any]], show: Callable[[dict[str, Any]], str] = json.dumps
) -> list[dict[str, Any]]:
    """Print each line as it comes, and append it to `out` as JSON with its origin; a line may name its `benchmark`.

    Args:
        out: made with the first line, so that what measures nothing leaves no file.
        show: how a line is printed.
    Returns:
        The lines, without their origin.
    """
    origin = {**origin_of(sys.argv), "gpu": device_name(), "commit": commit(), "date": _now()}
    origin |= {"sglang": _version("sglang"), "torch": _version("torch")}
    out.parent.mkdir(parents=True, exist_ok=True)
    recorded = []
    for line in lines:
        recorded.append(line)
        print(show(line), flush=True)
        # Unbuffered: a line is one write, so that several programs may append to one file.
        with out.open("ab", buffering=0) as file:
            file.write(f"{json.dumps({**origin, **line})}\n".encode())
    return recorded


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that `record` appended to a file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def origin_of(argv: list[str]) -> dict[str, str]:
    """What the command line says of itself: the name of the benchmark, and how to run it again."""
    argv = _without_keys(argv)
    program = Path(argv[0])
    if program.suffix != ".py":
        return {"benchmark": program.name, "command": " ".join([program.name, *argv[1:]])}
    parts = [program.parent.name] if program.stem == "__main__" else [program.parent.name, program.stem]
    return {"benchmark": program.stem, "command": " ".join(["python -m", ".".join(["sglang_moss", *parts]), *argv[1:]])}


def _without_keys(argv: list[str]) -> list[str]:
    """A command line that may be published."""
    shown = []
    for before, word in zip(["", *argv], argv, strict=False):
        name, equals, _value = word.partition("=")
        is_key = before.startswith("-") and before.endswith("key")
        shown.append("***" if is_key else f"{name}=***" if equals and name.endswith("key") else word)
    return shown


def commit() -> str | None:
    """The checkout's commit, `-dirty` if files differ from it; None if that is not known."""
    if COMMIT_VARIABLE in os.environ:
        return os.environ[COMMIT_VARIABLE]
    return _output(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--tags"])


def device_name() -> str:
    """The first GPU's name (all of a host are of a kind), or the processor's kind."""
    return _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    """The first line that a command prints; None where it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
