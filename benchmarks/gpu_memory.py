"""The most GPU memory in use while something runs, as nvidia-smi tells it; nothing where there is no such tool."""

import shutil
import subprocess
import threading
from types import TracebackType
from typing import Self

_POLL_S = 1.0
_QUERY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


class GpuMemoryPeak:
    """Polls while a `with` block lasts; `peak_mib` is of the GPU that uses the most, None if there is none."""

    def __init__(self) -> None:
        self.peak_mib: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        if shutil.which(_QUERY[0]):
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
            if self._stop.wait(_POLL_S):
                return


def gpu_memory_mib() -> int | None:
    """Used memory of the GPU that uses the most; None where nvidia-smi cannot tell."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=10)
        return max(int(line) for line in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
