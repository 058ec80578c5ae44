"""Processes forked early, which `multiprocessing` gets in the place of the first interpreters that it would spawn.

A server starts its scheduler by "spawn": a new interpreter that imports everything again. A process that was forked
before the server did anything stands where such an interpreter stands after its imports, and is as much its child. It
runs the code that the interpreter would have been given, with the same files, variables and arguments.

One spare is enough for a server on one GPU. The variable WARM_SPARES asks for more, and each of them has as many of its
own, since a controller of several schedulers starts them itself.
"""

import fcntl
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import util
from pathlib import Path
from typing import Any

FREE = 512  # descriptors that nobody has
MAX_BYTES, MAX_FILES = 1_000_000, 64
SPARES = "WARM_SPARES"

TakeEnvironment = Callable[[Mapping[str, str]], None]


def keep_some(take_environment: TakeEnvironment, not_for_them: Iterable[int]) -> None:
    """Fork spares, and have `multiprocessing` use them.

    Args:
        take_environment: called in each, with this process's variables of the time when it is used.
        not_for_them: descriptors that they close.
    """
    n_spares = int(os.environ.get(SPARES, "1"))
    spares: list[tuple[int, socket.socket]] = []
    for _ in range(n_spares):
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            for _pid, other in spares:
                other.close()
            ours.close()
            for file in not_for_them:
                os.close(file)
            _wait_and_become(its, take_environment, has_its_own=n_spares > 1)
        its.close()
        spares.append((pid, ours))
    _use(spares)


def _use(spares: list[tuple[int, socket.socket]]) -> None:
    spawn = util.spawnv_passfds
    lock = threading.Lock()

    def use_spare(path: bytes, arguments: list[str], files: Iterable[int]) -> int:
        with lock:
            if "--multiprocessing-fork" not in arguments or not spares:
                return spawn(path, arguments, files)
            pid, spare = spares.pop(0)
        files = sorted(set(files))
        code = arguments[arguments.index("-c") + 1]
        socket.send_fds(spare, [pickle.dumps((code, files, dict(os.environ), str(Path.cwd())))], files)
        spare.close()
        return pid

    util.spawnv_passfds = use_spare


def _wait_and_become(asker: socket.socket, take_environment: TakeEnvironment, has_its_own: bool) -> None:
    message, received, _flags, _address = socket.recv_fds(asker, MAX_BYTES, MAX_FILES)
    asker.close()
    if not message:  # the process has ended, and never wanted one
        os._exit(0)
    code, files, environment, folder = pickle.loads(message)
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, FREE) for file in received]
    for file in received:
        os.close(file)
    for file, target in zip(moved, files, strict=True):
        os.dup2(file, target)
        os.close(file)
    os.chdir(folder)
    take_environment(environment)
    if has_its_own:
        keep_some(take_environment, not_for_them=files)
    sys.argv = ["-c", "--multiprocessing-fork"]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)  # ends by SystemExit
