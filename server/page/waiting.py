"""Work of others that a client waits for: given up when the client leaves, and not begun where too many wait."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from ..errors import QueueFull

_LOOK_SECONDS = 0.5  # between two looks whether the client is still there
_CLIENT_CLOSED = 499

Result = TypeVar("Result")


class WaitingRoom:
    """How many may wait for one kind of work; each of them holds its samples in memory."""

    def __init__(self, most: int, retry_after: float) -> None:
        """
        Args:
            most: at a time, those included that are worked for.
            retry_after: seconds that the next one is told to wait.
        """
        self._most, self._retry_after = most, retry_after
        self._n_inside = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of them.

        Raises:
            QueueFull: there is none.
        """
        if self._n_inside >= self._most:
            raise QueueFull(f"{self._most} requests of this kind wait already: ask again later", self._retry_after)
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
        HTTPException: the client has gone.
        Exception: what `work` raises.
    """
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise HTTPException(_CLIENT_CLOSED, "the client has gone")
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})
