"""Work of others that a client waits for: given up when the client leaves, and not begun where too many wait."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from .errors import QueueFull

_LOOK_SECONDS = 0.5  # between two looks whether the client is still there
_MOST_WAITING, _RETRY_SECONDS = 8, 5.0  # an hour of samples has 170 MB

Result = TypeVar("Result")


class WaitingRoom:
    """Only so many wait for one kind of work, those included that are worked for: each holds its samples in memory."""

    def __init__(self) -> None:
        self._n_inside = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of them.

        Raises:
            QueueFull: there is none.
        """
        if self._n_inside >= _MOST_WAITING:
            raise QueueFull(f"{_MOST_WAITING} requests of this kind wait already: ask again later", _RETRY_SECONDS)
        self._n_inside += 1
        try:
            yield
        finally:
            self._n_inside -= 1


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled, and has ended, when this ends in any other way.

    Args:
        request: whose body has been read.
    Raises:
        ClientDisconnect: the client has gone.
        Exception: what `work` raises.
    """
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        await ended(task)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait for its end, however often who waits is cancelled: anyio does so with every turn of the
    loop, and what the task works on could not be closed while it runs."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
