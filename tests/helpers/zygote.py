"""A process that has imported SGLang and this package once, and forks one that goes on from there for whoever asks.

    pytest ---- starts ----> zygote: imports, then waits
      |                        |
      |  a function and        +--- fork ---> calls the function, answers by a pipe
      +- its arguments ------->|
      |                        |
      +- starts warm_python -->+--- fork ---> `sglang serve ...`; its spare becomes the scheduler
           (arguments, variables, folder, stdin, stdout, stderr; signals; back comes the status)

It does nothing with what it has imported, so a child is where a new interpreter stands that has run the same imports:
no plugin is loaded, no hook installed, no argument read. It has no threads of Python's own. Every child leads a session
of its own, and what is left of one when it has ended, or when nobody waits for it any more, is killed; unless the
variable WARM_LEAVES is set for it, for those who want to see whether anything is left.
"""

import atexit
import contextlib
import gc
import importlib
import os
import pickle
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import setproctitle
import spare_process

MODULES = (
    "sglang.cli.serve",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.multimodal_processor",
    "sglang.srt.models.registry",
    "sglang_moss.hooks",
    "sglang_moss.models.moss_ttsd",
    "sglang_moss.plugin",
    "sglang_moss.processor",
    "sglang_moss.serve_backend",
    "sglang_moss.server.app",
    "sglang_moss.warmup",
    "sglang_moss.benchmarks.reference.rows_engine",
)
HEADER = struct.Struct("!I")  # bytes of the request that follows, sent with its files
MAX_FILES = 4
LEAVES = "WARM_LEAVES"
STATUS = struct.Struct("!i")  # exit status, or a signal's number below zero

Job = Callable[[], Any]


@dataclass
class Child:
    """A process forked for somebody, and where they wait for it."""

    pid: int
    asker: socket.socket
    leaves: bool


class Zygote:
    """Waits for requests; `job` returns in a forked child alone, with what that is to do.

    Args:
        listener: where requests come.
        lifeline: a file that ends when the process that started this one has.
    """

    def __init__(self, listener: socket.socket, lifeline: int) -> None:
        self._listener = listener
        self._lifeline = lifeline
        self._children: dict[socket.socket, Child] = {}
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        self._waker = waker

    def job(self) -> Job:
        """The next child's work."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker)
        with selectors.DefaultSelector() as waiting:
            for file in (self._listener, self._lifeline, self._woken):
                waiting.register(file, selectors.EVENT_READ)
            while True:
                for key, _ in waiting.select():
                    if key.fileobj == self._listener:
                        asker, _address = self._listener.accept()
                        try:
                            request, files = received(asker)
                        except ConnectionError:  # a process that was killed while it asked
                            asker.close()
                            continue
                        job = self._fork(asker, request, files)
                        if job is not None:
                            return job
                        waiting.register(asker, selectors.EVENT_READ)
                    elif key.fileobj == self._woken:
                        os.read(self._woken, 4096)
                    elif key.fileobj == self._lifeline:
                        if not os.read(self._lifeline, 1):
                            self.end()
                    elif key.fileobj in self._children:
                        self._pass_on(self._children[key.fileobj])
                for child in self._ended():
                    waiting.unregister(child.asker)
                    child.asker.close()
                    del self._children[child.asker]

    def _fork(self, asker: socket.socket, request: dict[str, Any], files: list[int]) -> Job | None:
        """None in the zygote."""
        pid = os.fork()
        if pid:
            for file in files:
                os.close(file)
            self._children[asker] = Child(pid, asker, leaves=LEAVES in request["environment"])
            return None
        os.setsid()
        signal.set_wakeup_fd(-1)
        others, self._children = self._children, {}
        for file in (self._listener, asker, *others):
            file.close()
        for end in (self._woken, self._waker, self._lifeline):
            os.close(end)
        return lambda: run(request, files)

    def _pass_on(self, child: Child) -> None:
        """A signal for a child; without anybody who waits for it, its end."""
        try:
            numbers = child.asker.recv(16)
        except OSError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def _ended(self) -> list[Child]:
        """Children that have ended, and the last of what they started; those who wait are told."""
        ended = []
        for child in self._children.values():
            status = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if status is None:
                continue
            if not child.leaves:
                kill_group(child.pid)  # not reaped yet, so the id is still its own
            os.waitpid(child.pid, 0)
            number = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
            with contextlib.suppress(OSError):
                child.asker.sendall(STATUS.pack(number))
            ended.append(child)
        return ended

    def end(self) -> NoReturn:
        """With all that runs for somebody."""
        for child in self._children.values():
            kill_group(child.pid)
        os._exit(0)


def kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def received(asker: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request and its files.

    Raises:
        ConnectionError: it broke off.
    """
    header, files, _flags, _address = socket.recv_fds(asker, HEADER.size, MAX_FILES, socket.MSG_WAITALL)
    if len(header) < HEADER.size:
        raise ConnectionError("a request broke off")
    [n_bytes] = HEADER.unpack(header)
    body = bytearray()
    while len(body) < n_bytes:
        piece = asker.recv(n_bytes - len(body))
        if not piece:
            for file in files:
                os.close(file)
            raise ConnectionError("a request broke off")
        body += piece
    return pickle.loads(bytes(body)), files


def run(request: dict[str, Any], files: list[int]) -> Any:
    """In a child: become what was asked for."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for target, file in enumerate(files[:3]):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["folder"])
    take_environment(request["environment"])
    sys.modules["__main__"] = types.ModuleType("__main__")  # a process that is spawned would import ours again
    answers = files[3:]
    spare_process.keep_some(take_environment, not_for_them=answers)
    if answers:
        sys.path[:] = request["path"]
        return answer(request["call"], answers[0])
    return command(request["command"])


def take_environment(environment: Mapping[str, str]) -> None:
    """Replace this process's variables, and what has been read of them while importing."""
    changed = {name for name in {*os.environ, *environment} if os.environ.get(name) != environment.get(name)}
    os.environ.clear()
    os.environ.update(environment)
    retraction = {"SGLANG_TEST_RETRACT": "TEST_RETRACT", "SGLANG_TEST_RETRACT_INTERVAL": "TEST_RETRACT_INTERVAL"}
    for variable in sorted(changed & retraction.keys()):
        from sglang.srt.environ import envs
        from sglang.srt.managers import scheduler

        setattr(scheduler, retraction[variable], getattr(envs, variable).get())


def command(arguments: list[str]) -> Any:
    """`-m MODULE ARGUMENTS`, or the command `sglang ARGUMENTS`."""
    first, *others = arguments
    if first == "-m":
        sys.argv = others
        sys.path[0] = str(Path.cwd())
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        return None
    assert first == "sglang", f"the zygote runs -m MODULE or sglang, not {first}"
    from sglang.cli.main import main

    del sys.path[0]  # the helpers' folder
    sys.argv = arguments
    return main()


def answer(call: bytes, file: int) -> NoReturn:
    """Call a function with its arguments, and write what it returns or raises."""
    try:
        function, arguments = pickle.loads(call)
        found = pickle.dumps((True, function(*arguments)))
    except BaseException as error:
        error.add_note("".join(traceback.format_exception(error)))
        try:
            found = pickle.dumps((False, error))
            pickle.loads(found)
        except Exception:
            found = pickle.dumps((False, RuntimeError("".join(traceback.format_exception(error)))))
    with open(file, "wb") as answers:
        answers.write(found)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking apart all that has been imported takes a second


def prepare() -> None:
    """Import everything, and see that nothing has been started by that."""
    for module in MODULES:
        importlib.import_module(module)
    assert threading.active_count() == 1, f"importing has started {threading.enumerate()}"
    assert "prometheus_client" not in sys.modules, "it is imported before SGLang has said where metrics are collected"
    setproctitle.setproctitle("zygote")  # which learns now where there is room for the titles of children
    gc.collect()
    gc.freeze()  # else the first collection in every child would copy all of it


def main() -> None:
    if os.fork():
        return  # what pytest starts may kill all of pytest's children at its end, as SGLang's engine does
    listener = socket.socket(fileno=int(sys.argv[1]))
    prepare()
    zygote = Zygote(listener, lifeline=0)
    try:
        job = zygote.job()
    except BaseException:
        traceback.print_exc()
        zygote.end()
    sys.exit(job())


if __name__ == "__main__":
    main()
