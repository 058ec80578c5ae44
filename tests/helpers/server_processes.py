"""The processes of a running server, found by the port that its leader listens on."""

import os
import time

import psutil

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
    found = {" ".join(child.cmdline()): child for child in leader_of(server).children(recursive=True)}
    return [found[title] for title in sorted(found) if title.startswith(beginning)]


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def status_of(server: LocalServer, seconds: float) -> int:
    """The status with which a server ends by itself, or the signal that ended it; it stays to be stopped."""
    assert server._process is not None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = os.waitid(os.P_PID, server._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_status
        time.sleep(0.05)
    raise AssertionError(f"it has not ended within {seconds} s")
