"""A server on this machine for as long as a `with` block lasts: the demo, tests and benchmarks run against it.

    with LocalServer("fused", log=Path("server.log")) as server:
        MossClient(server.url).generate("[S1] Hello.")

It runs as a process group of its own on a free port of 127.0.0.1, and that group alone is ended, by its id. A start
takes a minute or two, most of it imports; `on_progress` is told meanwhile what the server is doing.
"""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import httpx

from .start_log import StartProgress, StartReport

HOST = "127.0.0.1"
# `sglang serve` by module, for where no script is installed.
SGLANG_SERVE = (sys.executable, "-c", "from sglang.cli.main import main; main()", "serve")
_POLL_S = 0.2
_PROBE_TIMEOUT_S = 5.0
_TAIL_LINES = 25


class ServerFailed(RuntimeError):  # noqa: N818 (named for what happened)
    """The server died, or was not ready in time; the message ends with the last lines of its log."""


class LocalServer:
    """`sglang serve --delay-pattern` as a subprocess; entering waits until it is ready, leaving stops it.

    Args:
        model_path: a fused checkpoint.
        extra_args: more arguments of `sglang serve`.
        env: variables to set for the server, on top of this process's.
        log: file for what the server prints; replaced if it exists.
        start_timeout_s: how long it may take to be ready.
        stop_timeout_s: how long it may take to end by itself before it is killed.
        command: what to run instead of `sglang serve`; the same arguments follow.
        delay_pattern: serve our model; False: stock SGLang with another one.
        on_progress: called while entering waits: at first, whenever the server comes to another part of its start, and
            at least every ten seconds.
    Raises:
        ServerFailed: on entering, when the server dies or `start_timeout_s` has passed. Nothing of it is left then.
        FileNotFoundError: on entering, when the command does not exist.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        log: Path,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 600.0,
        stop_timeout_s: float = 20.0,
        command: Sequence[str] | None = None,
        delay_pattern: bool = True,
        on_progress: Callable[[StartProgress], None] | None = None,
    ) -> None:
        self.log = log
        self.port = 0  # while it runs: its port
        self._model_path = model_path
        self._extra_args = extra_args
        self._env = env or {}
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._command = command or (str(Path(sysconfig.get_path("scripts")) / "sglang"), "serve")
        self._flags = ["--delay-pattern"] if delay_pattern else []
        self._on_progress = on_progress
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the server listens, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with kept_port() as self.port:
            self._start()
        return self

    def _start(self) -> None:
        arguments = ["--model-path", str(self._model_path), *self._flags, "--host", HOST, "--port", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, *arguments, *self._extra_args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self._env),
                start_new_session=True,  # so that its children can be ended with it, and Ctrl-C reaches only us
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server: SIGTERM to its leader, which ends its children; SIGKILL to what is left. Harmless twice."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.kill(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + self._stop_timeout_s
            while not _has_ended(process) and time.monotonic() < deadline:
                time.sleep(_POLL_S / 4)
        finally:
            # Its leader is not reaped before this line, so the group's id cannot belong to anybody else yet.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log_tail(self) -> str:
        """The last lines that the server printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        started = time.monotonic()
        report = StartReport(self.log, self._on_progress) if self._on_progress else None
        if report is not None:
            report.look(0.0)
        # Without the environment's proxies: they know nothing of this machine's loopback.
        with httpx.Client(base_url=self.url, timeout=_PROBE_TIMEOUT_S, trust_env=False) as probe:
            while not _is_healthy(probe):
                if _has_ended(process):
                    raise self._failed("the server ended before it was ready")
                seconds = time.monotonic() - started
                if report is not None:
                    report.look(seconds)
                if seconds > self._start_timeout_s:
                    raise self._failed(f"the server was not ready within {self._start_timeout_s:g} s")
                time.sleep(_POLL_S)
        if _has_ended(process):
            raise self._failed(f"another server answers on port {self.port}, and ours ended")

    def _failed(self, problem: str) -> ServerFailed:
        return ServerFailed(f"{problem}; the end of {self.log}:\n{self.log_tail()}")


def exit_on_signals() -> None:
    """End this process by `SystemExit` on SIGTERM and SIGHUP, so that `with` blocks stop what they have started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit_on_signal)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with kept_port() as port:
        return port


@contextmanager
def kept_port() -> Iterator[int]:
    """A free port on which a server may listen, and which nobody else is given while the block lasts."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # servers set it too, and may share what is bound
        keeper.bind((HOST, 0))
        port = keeper.getsockname()[1]
        if sys.platform != "linux":  # elsewhere a socket that is bound keeps everybody away
            keeper.close()
        yield port


def _is_healthy(probe: httpx.Client) -> bool:
    try:
        return probe.get("/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended; unlike `poll`, leaves it to be reaped, and with it its id."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
