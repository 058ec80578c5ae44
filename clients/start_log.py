"""What a starting server is doing, read off what it has printed so far.

SGLang prints a line as it comes to each part of its start. Only words depend on it: a line that another release words
otherwise leaves the part before it standing, and whether a server is ready is asked of the server.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

IMPORTING = "importing SGLang"
_EVERY_S = 8.0  # and a look may come two seconds late
# What a line holds, and what the server does from there on; in the order of a start.
_PARTS = (
    ("server_args=", "importing SGLang again, for the process of the model"),
    ("Load weight begin.", "loading the weights"),
    ("Load weight end.", "allocating memory"),
    ("CUDA graph begin.", "capturing CUDA graphs"),
    ("Running warmup ", "speaking a warm-up request"),
    ("Warmup ended", "opening the port"),
    ("The server is fired up", "listening"),
)


@dataclass(frozen=True)
class StartProgress:
    """Where a start stands."""

    part: str  # what the server is doing, in words
    seconds: float  # since it was started

    def __str__(self) -> str:
        return f"{self.seconds:3.0f} s  {self.part}"


class StartReport:
    """Tells how a start goes on: at first, at each new part, and at least every ten seconds."""

    def __init__(self, log: Path, tell: Callable[[StartProgress], None]) -> None:
        self._log = log
        self._tell = tell
        self._told: StartProgress | None = None

    def look(self, seconds: float) -> None:
        """Read what the server has printed by now, `seconds` after it was started, and tell what is due."""
        progress = StartProgress(part_of_start(self._log.read_text(encoding="utf-8", errors="replace")), seconds)
        told = self._told
        if told is None or told.part != progress.part or seconds - told.seconds >= _EVERY_S:
            self._told = progress
            self._tell(progress)


def part_of_start(log: str) -> str:
    """What a server that has printed `log` is doing: the last part that it has come to."""
    return next((part for line, part in reversed(_PARTS) if line in log), IMPORTING)
