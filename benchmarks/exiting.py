"""SIGTERM ends a benchmark as Ctrl-C does: on the way out it stops what it has started."""

import signal
import sys
from types import FrameType


def exit_on_sigterm() -> None:
    """From now on SIGTERM raises SystemExit, with status 143."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
