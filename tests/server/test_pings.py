"""Comments where events are late: between them, never in one, and none where none is needed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import pytest

from sglang_moss.server.pings import PING, with_pings


def heard(pauses: list[float], seconds: float) -> list[bytes]:
    async def events() -> AsyncIterator[bytes]:
        for i, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            yield b"%d" % i

    async def run() -> list[bytes]:
        return [event async for event in with_pings(events(), seconds)]

    return asyncio.run(run())


def test_events_that_come_in_time_are_all_there_is():
    assert heard([0, 0, 0], seconds=5) == [b"0", b"1", b"2"]


def test_a_late_event_has_comments_before_it():
    found = heard([0, 0.3, 0], seconds=0.1)
    assert found[0] == b"0"
    assert found[-2:] == [b"1", b"2"]
    assert len(found) >= 4
    assert set(found[1:-2]) == {PING}


def test_who_leaves_while_it_is_silent_ends_the_source():
    ended = []

    async def events() -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(60)
            yield b"never"
        finally:
            ended.append(True)

    async def run() -> None:
        pinged = with_pings(events(), 0.01)
        assert await anext(pinged) == PING
        await pinged.aclose()
        assert len(ended) == 1
        task = asyncio.create_task(anext(with_pings(events(), 5)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ended) == 2

    asyncio.run(run())


def test_a_stream_that_is_left_while_it_waits_is_closed_without_an_error():
    closed = []

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            await asyncio.sleep(3600)
        finally:
            for _ in range(3):  # what is closed takes its time
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(0)
            closed.append(True)

    async def leave() -> None:
        begun = asyncio.Event()

        async def listen() -> None:
            async for _ in with_pings(events(), 60):
                begun.set()

        async with anyio.create_task_group() as group:  # as Starlette's
            group.start_soon(listen)
            await begun.wait()
            await asyncio.sleep(0)
            group.cancel_scope.cancel()

    asyncio.run(leave())
    assert closed == [True]
