"""Comments where events are late: between them, never in one, and none where none is needed."""

import asyncio
from collections.abc import AsyncIterator

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
