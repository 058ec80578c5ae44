"""Waiting for what happens in another thread, process or server, with an end."""

import time
from collections.abc import Callable
from typing import Any

import httpx

_SECONDS = 60.0  # far more than anything here takes: a machine that is busy with other things is no failure


def wait_for(condition: Callable[[], Any], seconds: float = _SECONDS) -> None:
    """Return as soon as `condition` holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it has not come true within {seconds} s"
        time.sleep(0.01)


def n_running(client: httpx.Client) -> int:
    """Requests that the scheduler has: those that run, and those that wait for a place in the batch."""
    loads = client.get("/v1/loads", params={"include": "core"}).json()["loads"]
    return sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)


def wait_until_running(client: httpx.Client) -> None:
    """Return once the server says that it runs a request, or fail: what it tells follows what it does."""
    wait_for(lambda: n_running(client))


def wait_until_idle(client: httpx.Client) -> None:
    """Return once the server runs no request, or fail."""
    deadline = time.monotonic() + _SECONDS
    while n_running(client):
        assert time.monotonic() < deadline, "requests that nobody waits for are still running"
        time.sleep(0.1)
