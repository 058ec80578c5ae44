"""How the commands of this folder end: by what failed in a sentence, by Ctrl-C, by SIGTERM."""

import functools
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec

from ...clients.errors import ClientError

P = ParamSpec("P")
_INTERRUPTED = 128 + signal.SIGINT


def exit_on_sigterm() -> None:
    """From now on SIGTERM raises SystemExit, with status 143: on the way out a command stops what it has started."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def in_one_line(kept: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """For the `main` of a command: what a user can mend is one sentence and status 1, Ctrl-C another and status 130.

    Args:
        kept: what is there after Ctrl-C, such as "lines of the cases before are written".
    """

    def around(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except (ClientError, OSError, ValueError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print(f"interrupted: {kept}", file=sys.stderr)
                return _INTERRUPTED

        return run

    return around
