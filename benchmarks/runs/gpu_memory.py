"""Memory and power of the GPU while something runs, as nvidia-smi tells it; nothing where there is no such tool.

Of several GPUs, those of `CUDA_VISIBLE_DEVICES`.
"""

import os
import shutil
import subprocess
import threading
from types import TracebackType
from typing import Self

_POLL_S = 1.0
_TOOL = "nvidia-smi"


class GpuWatch:
    """Polls while a `with` block lasts; its figures are None where there is nothing to tell.

    Attributes:
        peak_mib: of the GPU that uses the most.
        mean_watts: of all GPUs together.
    """

    def __init__(self) -> None:
        self.peak_mib: int | None = None
        self._watts: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    @property
    def mean_watts(self) -> float | None:
        return sum(self._watts) / len(self._watts) if self._watts else None

    def __enter__(self) -> Self:
        if shutil.which(_TOOL):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _poll(self) -> None:
        while True:
            used, watts = _query("memory.used", "power.draw")
            if not used:
                return
            self.peak_mib = max(self.peak_mib or 0, int(max(used)))
            if watts:
                self._watts.append(sum(watts))
            if self._stop.wait(_POLL_S):
                return


def gpu_memory_mib() -> int | None:
    """Used memory of the GPU that uses the most; None where nvidia-smi cannot tell."""
    [used] = _query("memory.used")
    return int(max(used)) if used else None


def _query(*fields: str) -> list[list[float]]:
    """Of each field its numbers, one a GPU; none where nvidia-smi cannot tell."""
    command = [_TOOL, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return [[] for _ in fields]
    rows = [line.split(",") for line in done.stdout.split("\n") if line.strip()]
    return [_numbers([row[i] for row in rows]) for i in range(len(fields))]


def _numbers(told: list[str]) -> list[float]:
    try:
        return [float(value) for value in told]
    except ValueError:  # [N/A]
        return []
