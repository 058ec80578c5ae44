"""SIGTERM and Ctrl-C while a server starts: everything ends at once, in a line, and nothing is left.

From the moment at which it listens, `server.gate.shutdown` has them. Python's own ways are a traceback of fifty lines
out of some import, or an end that leaves files.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

from sglang_moss import socket_folder

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CHILDREN_SECONDS = 2.0


def end_at_once() -> None:
    """From now on until others take these signals; those that are ignored, as of a script's background job, stay so."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    try:
        _tell(number)
        _end_children()
    finally:  # whatever failed: nothing else would end it now
        try:
            socket_folder.remove()
        finally:
            os._exit(128 + number)


def _tell(number: int) -> None:
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):  # who read it has ended by the same Ctrl-C, as `| tee` does
        os.write(2, f"sglang_moss: {name} while the server starts: nothing is left running\n".encode())


def _end_children() -> None:
    if "sglang" not in sys.modules:  # there are none yet
        return
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=_CHILDREN_SECONDS)
