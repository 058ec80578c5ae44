"""Programs with limits: started, waited for, ended. What one of them prints goes to a file of its own."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_POLL_S = 0.2
_END_S = 30.0  # to stop what the program has started
_TAIL_LINES = 20


@dataclass(frozen=True)
class Program:
    """A command to run, where its output goes, and after how many seconds it is stopped."""

    name: str
    command: Sequence[str]
    log: Path
    limit_s: float


class PartProcess:
    """A program while it runs; leaving the `with` block ends it, by SIGTERM to it and then SIGKILL to its group."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.began = time.monotonic()
        self._was_stopped = False

    def __enter__(self) -> Self:
        print(f"== {self.program.name}: {shlex.join(self.program.command[1:])}", flush=True)
        with self.program.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only us, and its children can be ended with it
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def has_ended(self) -> bool:
        """Whether it has ended; it is stopped for that once its limit has passed."""
        if self._process.poll() is None and time.monotonic() > self.began + self.program.limit_s:
            self._was_stopped = True
            self.__exit__(None, None, None)
        return self._process.poll() is not None

    def report(self) -> bool:
        """Print how it ended, and why if it failed; returns whether all was well."""
        seconds, status = time.monotonic() - self.began, self._process.returncode
        how = f"stopped at its limit of {self.program.limit_s:.0f} s" if self._was_stopped else f"status {status}"
        print(f"== {self.program.name}: {how} after {seconds:.0f} s", flush=True)
        if status:
            lines = self.program.log.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines[-_TAIL_LINES:]:
                print(f"   | {line[:300]}", flush=True)
        return status == 0


def run_together(programs: Iterable[Program]) -> bool:
    """Run programs side by side, each up to its limit; whether all of them ended well."""
    with ExitStack() as stack:
        running = [stack.enter_context(PartProcess(program)) for program in programs]
        all_well = True
        while running:
            for process in [process for process in running if process.has_ended()]:
                all_well &= process.report()
                running.remove(process)
            time.sleep(_POLL_S)
    return all_well


def module_command(module: str, arguments: str) -> list[str]:
    """`python -m sglang_moss.benchmarks.MODULE` with the arguments of one string."""
    return [sys.executable, "-m", f"sglang_moss.benchmarks.{module}", *shlex.split(arguments)]
