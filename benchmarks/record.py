"""Result lines: what was measured, by which command, on what."""

import json
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def record(out: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Print each line as it comes, and append it to `out` as JSON with its command and machine."""
    module = Path(sys.argv[0]).stem
    origin = {
        "benchmark": module,
        "command": " ".join(["python -m", f"sglang_moss.benchmarks.{module}", *sys.argv[1:]]),
        "device": device_name(),
        "sglang": version("sglang"),
        "torch": version("torch"),
    }
    with out.open("a") as file:
        for line in lines:
            print(json.dumps(line), flush=True)
            file.write(json.dumps({**origin, **line}) + "\n")
            file.flush()


def device_name() -> str:
    """The GPU's name, or the processor's kind."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
