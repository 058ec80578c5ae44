"""Processes that need not import SGLang: one zygote for all tests of a run.

A server: `warm_server`, or the command that `warm` makes. A function: `fresh_process.in_fresh_process`. An engine:
`warm_engine`. What is to be proved about a start itself starts from nothing, by `LocalServer`.
"""

import atexit
import functools
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sglang_moss.clients.local_server import LocalServer

HELPERS = Path(__file__).parent
ZYGOTE = "WARM_ZYGOTE"  # variable with the address of one that runs already


def warm(*arguments: str) -> tuple[str, ...]:
    """A command that does what `sglang ...` or `python -m ...` does, without their imports."""
    return (sys.executable, "-IS", str(HELPERS / "warm_python.py"), start_zygote(), *arguments)


def warm_server(path: Path, **options: Any) -> LocalServer:
    """A server that is ready within seconds; `options` are those of `LocalServer`."""
    return LocalServer(path, command=warm("sglang", "serve"), **options)


def call_warm(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns, or raises, in a process of its own that has imported SGLang."""
    zygote = socket.socket(socket.AF_UNIX)
    zygote.connect(start_zygote())
    call = pickle.dumps((function, arguments))
    request = {"call": call, "path": sys.path, "environment": dict(os.environ), "folder": str(Path.cwd())}
    body = pickle.dumps(request)
    reader, writer = os.pipe()
    with zygote, open(reader, "rb") as answers, Path(os.devnull).open() as nothing:  # noqa: PTH123 (a descriptor)
        socket.send_fds(zygote, [struct.pack("!I", len(body))], [nothing.fileno(), 1, 2, writer])
        os.close(writer)
        zygote.sendall(body)
        found = answers.read()
        status = zygote.recv(4, socket.MSG_WAITALL)
    if not found:
        raise RuntimeError(f"a process of {function.__name__} has ended with {status!r} and no answer:\n{printed()}")
    succeeded, value = pickle.loads(found)
    if succeeded:
        return value
    raise value


@functools.cache
def start_zygote() -> str:
    """The address of the zygote, which may still be importing; whoever asks waits."""
    if address := os.environ.get(ZYGOTE):
        return address
    folder = tempfile.TemporaryDirectory(prefix="zygote-")
    atexit.register(folder.cleanup)
    address = str(Path(folder.name) / "socket")
    lifeline, _ours = os.pipe()  # open as long as this process lives, and the zygote no longer
    with socket.socket(socket.AF_UNIX) as listener, _log(address).open("wb") as log:
        listener.bind(address)
        listener.listen(64)
        subprocess.run(  # which leaves the zygote behind
            [sys.executable, str(HELPERS / "zygote.py"), str(listener.fileno())],
            stdin=lifeline,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            check=True,
        )
    os.close(lifeline)
    return address


def _log(address: str) -> Path:
    return Path(address).with_name("log")


def printed() -> str:
    """What the zygote itself has printed."""
    return _log(start_zygote()).read_text(errors="replace")
