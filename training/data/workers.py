"""Processes that do one task at a time, and the pipe to each.

A worker is a Python of its own that runs one module and imports nothing else: no fork of threads or GPU contexts, no
second run of the program that called. It reads nothing but its pipe and ends with it, so that a killed parent leaves
none behind.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PATIENCE_S = 10.0
_TAIL_BYTES = 2000  # of a log, shown when its worker has died


class WorkerDied(Exception):  # noqa: N818 (named for what happened)
    """A worker's process has ended by itself."""


class Worker:
    """One process.

    Attributes:
        connection: readable when the worker has sent something, or has ended.
        task: what it is at, for whoever gave it.
    """

    def __init__(self, module: str, arguments: Any, log: Path, env: Mapping[str, str] | None = None) -> None:
        """
        Args:
            module: with a `main` that reads from `parent`.
            arguments: the first message.
            log: takes what it prints.
            env: added to the environment.
        """
        ours, theirs = socket.socketpair()
        self._log = log
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                # Not `-m`: what the module defines would be of `__main__` there, and of nothing here.
                [sys.executable, "-c", f"from {module} import main; main()", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
            )
        self.connection = Connection(ours.detach())
        self.task: Any = None
        self.send(arguments)

    def send(self, message: Any) -> None:
        """Hand it a message; that it has died is told by `receive`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            WorkerDied: none will come.
        """
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None

    def close(self) -> None:
        """Tell it to end; it finishes what it is at."""
        self.connection.close()

    def join(self) -> None:
        """After `close`: wait a while, then end it."""
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _death(self) -> WorkerDied:
        try:
            status = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        tail = self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip() if self._log.exists() else ""
        return WorkerDied(f"{how}: {tail}" if tail else how)


def close_all(workers: Sequence[Worker]) -> None:
    """End several."""
    for worker in workers:
        worker.close()
    for worker in workers:
        worker.join()


def parent() -> Connection:
    """The worker's end of its pipe; Ctrl-C is left to the parent, which then closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return Connection(int(sys.argv[1]))
