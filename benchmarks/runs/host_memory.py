"""Host memory of a server on this machine."""

from urllib.parse import urlsplit

import psutil


def server_of(url: str) -> psutil.Process | None:
    """The process on this machine that listens at `url`; None if there is none that we may see."""
    port = urlsplit(url).port
    for connection in psutil.net_connections(kind="tcp"):
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None


def resident_mib(server: psutil.Process | None) -> dict[str, float] | None:
    """Resident memory of the HTTP process and of its children, the scheduler's the largest."""
    if server is None:
        return None
    children = sorted(child.memory_info().rss for child in server.children(recursive=True))
    return {"http": server.memory_info().rss / 2**20, "scheduler": (children or [0])[-1] / 2**20}
