"""A process forked early, which `multiprocessing` gets in the place of the first interpreter that it would spawn.

A server starts its scheduler by "spawn": a new interpreter that imports everything again. A process that was forked
before the server did anything stands where such an interpreter stands after its imports, and is as much its child. It
runs the code that the interpreter would have been given, with the same files, variables and arguments.
"""

import fcntl
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import util
from pathlib import Path
from typing import Any

FREE = 512  # descriptors that nobody has
MAX_BYTES, MAX_FILES = 1_000_000, 64


def keep_one(take_environment: Callable[[Mapping[str, str]], None], not_for_it: Iterable[int]) -> None:
    """Fork a spare, and have `multiprocessing` use it.

    Args:
        take_environment: called in it, with this process's variables of that time.
        not_for_it: descriptors that it closes.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        for file in not_for_it:
            os.close(file)
        _wait_and_become(its, take_environment)
    its.close()
    _use(pid, ours)


def _use(pid: int, spare: socket.socket) -> None:
    spawn = util.spawnv_passfds

    def use_spare(path: bytes, arguments: list[str], files: Iterable[int]) -> int:
        if "--multiprocessing-fork" not in arguments:
            return spawn(path, arguments, files)
        files = sorted(set(files))
        code = arguments[arguments.index("-c") + 1]
        socket.send_fds(spare, [pickle.dumps((code, files, dict(os.environ), str(Path.cwd())))], files)
        spare.close()
        util.spawnv_passfds = spawn
        return pid

    util.spawnv_passfds = use_spare


def _wait_and_become(asker: socket.socket, take_environment: Callable[[Mapping[str, str]], None]) -> None:
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
    sys.argv = ["-c", "--multiprocessing-fork"]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)  # ends by SystemExit
