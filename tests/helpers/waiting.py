"""Waiting for what happens in another thread, process or server, with an end."""

import time
from collections.abc import Callable
from typing import Any

import httpx

PATIENCE_S = 60  # for what comes at once, also on a machine that has much else to do


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Return what `condition` gives as soon as it holds, or fail."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it has not come true within {seconds} s"
        time.sleep(0.01)
    return found


def n_running(client: httpx.Client) -> int:
    """Requests that the scheduler has: those that run, and those that wait for a place in the batch."""
    loads = client.get("/v1/loads", params={"include": "core"}).json()["loads"]
    return sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)


def wait_until_running(client: httpx.Client) -> None:
    """Return once the server says that it runs a request, or fail: what it tells follows what it does."""
    wait_for(lambda: n_running(client))


def wait_until_idle(client: httpx.Client) -> None:
    """Return once the server runs no request, or fail."""
    wait_for(lambda: not n_running(client))
