"""Requests are prepared in the order in which they came, and none waits for one that does not end."""

import asyncio

import pytest

from sglang_moss.request import preparation
from sglang_moss.request.preparation import Preparation, PreparationOrder

N_STAGES = 3


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a place that nobody gives back is missed."""
    monkeypatch.setattr(preparation, "_LONGEST_S", 60.0)


def in_time(awaitable) -> None:
    asyncio.run(asyncio.wait_for(awaitable, 10.0))


async def fill(order: PreparationOrder) -> list[Preparation]:
    """Take all places."""
    holders = [order.preparation() for _ in range(preparation._AT_A_TIME)]
    for holder in holders:
        await holder.begin()
    return holders


async def prepare(own: Preparation, name: int, passed: list[int]) -> None:
    await own.begin()
    try:
        for _ in range(N_STAGES):
            await asyncio.sleep(0)
            passed.append(name)
    finally:
        own.end()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_stages_of_one_come_before_those_of_whoever_came_after_it(at_a_time, monkeypatch):
    monkeypatch.setattr(preparation, "_AT_A_TIME", at_a_time)
    passed: list[int] = []

    async def together() -> None:
        order = PreparationOrder()
        await asyncio.gather(*(prepare(order.preparation(), i, passed) for i in range(8)))

    in_time(together())
    ready = {name: i for i, name in enumerate(passed)}  # its last stage
    assert list(ready) == list(range(8))
    assert [ready[i] for i in range(8)] == sorted(ready.values())
    for i, last in ready.items():  # nobody beyond those at a time has begun by then
        assert max(passed[: last + 1]) < i + at_a_time
        assert last < N_STAGES * (i + at_a_time)


@pytest.mark.usefixtures("patient")
def test_to_end_twice_or_before_it_began_makes_no_place():
    async def run() -> None:
        order = PreparationOrder()
        first, second, third, late = (order.preparation() for _ in range(4))
        late.end()
        await late.begin()  # what has ended waits for nobody, and takes no place
        await first.begin()
        await first.begin()
        first.end()
        first.end()
        await second.begin()
        await third.begin()
        waiting = asyncio.create_task(order.preparation().begin())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        third.end()
        await waiting

    in_time(run())


@pytest.mark.usefixtures("patient")
def test_one_that_leaves_while_it_waits_takes_no_place_with_it():
    async def run() -> None:
        order = PreparationOrder()
        holders = await fill(order)
        own = order.preparation()
        leaving = asyncio.create_task(own.begin())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        own.end()
        for holder in holders:
            holder.end()
        for _ in holders:
            await order.preparation().begin()

    in_time(run())


def test_one_that_takes_long_keeps_nobody_waiting_and_its_place_is_given_back_once(monkeypatch):
    monkeypatch.setattr(preparation, "_LONGEST_S", 0.01)
    passed: list[int] = []

    async def run() -> None:
        order = PreparationOrder()
        stuck = await fill(order)
        await prepare(order.preparation(), 0, passed)
        assert not any(one.has_place for one in stuck)
        monkeypatch.setattr(preparation, "_LONGEST_S", 60.0)
        holders = await fill(order)
        for one in stuck:
            one.end()
        waiting = asyncio.create_task(order.preparation().begin())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        holders[0].end()
        await waiting

    in_time(run())
    assert passed == [0] * N_STAGES


@pytest.mark.usefixtures("patient")
def test_one_that_ends_while_it_waits_takes_no_place():
    async def run() -> None:
        order = PreparationOrder()
        holders = await fill(order)
        own = order.preparation()
        waiting = asyncio.create_task(own.begin())
        await asyncio.sleep(0)
        own.end()
        for holder in holders:
            holder.end()
        await waiting
        assert not own.has_place
        for _ in holders:
            await order.preparation().begin()

    in_time(run())


def test_outside_of_a_server_there_is_no_order():
    async def run() -> None:
        for _ in range(10):
            await Preparation().begin()

    in_time(run())
