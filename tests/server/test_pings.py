"""Comments where events are late: between them, never in one, and none where none is needed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import pytest
from waiting import PATIENCE_S

from sglang_moss.server.pings import PING, with_pings


async def events_behind(may_go_on: asyncio.Event) -> AsyncIterator[bytes]:
    yield b"0"
    await may_go_on.wait()
    yield b"1"
    yield b"2"


def test_events_that_come_in_time_are_all_there_is():
    async def run() -> list[bytes]:
        may_go_on = asyncio.Event()
        may_go_on.set()
        return [event async for event in with_pings(events_behind(may_go_on), PATIENCE_S)]

    assert asyncio.run(run()) == [b"0", b"1", b"2"]


def test_a_late_event_has_comments_before_it():
    async def run() -> list[bytes]:
        may_go_on, found = asyncio.Event(), []
        async for event in with_pings(events_behind(may_go_on), 0.02):
            found.append(event)
            if b"0" in found and found[found.index(b"0") :].count(PING) == 2:
                may_go_on.set()
        return found

    found = asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert [event for event in found if event != PING] == [b"0", b"1", b"2"]
    assert found[found.index(b"0") :].index(b"1") >= 3


def test_who_leaves_while_it_is_silent_ends_the_source():
    ended = []

    async def events() -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(2 * PATIENCE_S)
            yield b"never"
        finally:
            ended.append(True)

    async def run() -> None:
        pinged = with_pings(events(), 0.01)
        assert await anext(pinged) == PING
        await pinged.aclose()
        assert len(ended) == 1
        task = asyncio.create_task(anext(with_pings(events(), PATIENCE_S)))
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
