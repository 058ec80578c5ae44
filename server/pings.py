"""Comments between server-sent events, so that nothing on the way takes a stream that waits for a dead one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from .waiting import ended

PING_SECONDS = 15.0  # proxies cut what is silent for 60, some for 30
PING = b": waiting\n\n"  # a comment, which every reader of events passes over


async def with_pings(events: AsyncGenerator[bytes, None], seconds: float = PING_SECONDS) -> AsyncGenerator[bytes, None]:
    """The same events, with a comment after every so many seconds without one. Closing it closes `events`."""
    async with contextlib.aclosing(events), contextlib.aclosing(with_silences(events, seconds)) as found:
        async for event in found:
            yield PING if event is None else event


async def with_silences(source: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes | None, None]:
    """What `source` yields, and None after every so many seconds in which it has not."""

    async def following() -> bytes:
        return await anext(source, b"")

    while True:
        coming = asyncio.create_task(following())
        try:
            while not (await asyncio.wait({coming}, timeout=seconds))[0]:
                yield None
            data = coming.result()
        except BaseException:
            await ended(coming)
            raise
        if not data:
            return
        yield data
