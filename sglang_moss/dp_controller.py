"""SGLang's data-parallel controller, which hands requests to the ranks: ends with any of them, and idles without work.

As it is, it does not watch the ranks that it has started: where one is killed, it waits for ever to send to it, and
with it all others do. It also polls without a pause, which takes a core, and Ctrl-C ends it before anything is done.
"""

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import zmq
from sglang.srt.utils.watchdog import SubprocessWatchdog

_PAUSE_MS = 1000


class PatientSocket(zmq.Socket):
    """A socket whose reader asks whether there is something: it waits a while before it hears that there is nothing."""

    def recv(self, flags: int = 0, *args: Any, **kwargs: Any) -> Any:
        if flags & zmq.NOBLOCK:
            self.poll(_PAUSE_MS)
        return super().recv(flags, *args, **kwargs)


def settle(controller: Any) -> None:
    """Called in the controller before its loop: watch the ranks, wait for work, leave Ctrl-C to the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a script's background job starts with both ignored
    names = [f"rank {rank}" for rank in range(len(controller.scheduler_procs))]
    SubprocessWatchdog(controller.scheduler_procs, names).start()  # its SIGQUIT ends this process; the server sees that
    controller.recv_from_tokenizer = PatientSocket(controller.recv_from_tokenizer)


def is_settled() -> bool:
    """Asked in the HTTP process: whether the controller that it has started has run `settle`.

    It has no way to say so; that it ignores Ctrl-C, and SIGQUIT not, shows it.
    """
    ignored = (_ignored_by(child.pid) for child in multiprocessing.active_children())
    return any(signal.SIGINT in numbers and signal.SIGQUIT not in numbers for numbers in ignored)


def _ignored_by(pid: int | None) -> set[int]:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")), 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}
