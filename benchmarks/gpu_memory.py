"""Memory and power of the GPU while something runs, as nvidia-smi tells it; nothing where there is no such tool."""

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
            used_mib = gpu_memory_mib()
            if used_mib is None:
                return
            self.peak_mib = max(self.peak_mib or 0, used_mib)
            if watts := _query("power.draw"):
                self._watts.append(sum(watts))
            if self._stop.wait(_POLL_S):
                return


def gpu_memory_mib() -> int | None:
    """Used memory of the GPU that uses the most; None where nvidia-smi cannot tell."""
    used = _query("memory.used")
    return int(max(used)) if used else None


def _query(field: str) -> list[float]:
    """A field of every GPU; none where nvidia-smi cannot tell."""
    command = [_TOOL, f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return [float(line) for line in done.stdout.split("\n") if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
