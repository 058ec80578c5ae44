"""Work of others that a client waits for: given up when the client leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request

_LOOK_SECONDS = 0.5  # between two looks whether the client is still there
_CLIENT_CLOSED = 499

Result = TypeVar("Result")


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
