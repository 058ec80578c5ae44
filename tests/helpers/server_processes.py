"""The processes of a running server, found by the port that its leader listens on."""

import contextlib
import os
import time

import psutil
from waiting import wait_for

from sglang_moss.clients.local_server import LocalServer


def schedulers(server: LocalServer) -> list[psutil.Process]:
    """One process a rank, the first rank first."""
    return named(server, "sglang::scheduler")


def leader_of(server: LocalServer) -> psutil.Process:
    """The process that listens, and leads the group of all of them."""
    [leader] = [process for process in psutil.process_iter() if _listens(process, server.port)]
    return leader


def named(server: LocalServer, beginning: str) -> list[psutil.Process]:
    """Processes under the leader whose titles begin so, in the order of their titles."""
    found = {}
    for child in leader_of(server).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
            found[" ".join(child.cmdline())] = child
    return [found[title] for title in sorted(found) if title.startswith(beginning)]


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_at_rest(processes: list[psutil.Process]) -> None:
    """Return once none of them takes a third of a core for some seconds, or fail: what was asked last may still end."""

    def most_cpu() -> float:
        before, started = [_cpu_seconds(process) for process in processes], time.monotonic()
        time.sleep(3)
        used = (_cpu_seconds(process) - spent for process, spent in zip(processes, before, strict=True))
        return max(used) / (time.monotonic() - started)

    wait_for(lambda: most_cpu() < 0.3)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def status_of(server: LocalServer) -> int:
    """The status with which a server ends by itself, or the signal that ended it; it stays to be stopped."""
    assert server._process is not None
    pid = server._process.pid
    return wait_for(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)).si_status
