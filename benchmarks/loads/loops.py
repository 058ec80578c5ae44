"""Load on a server: requests at a fixed concurrency or at Poisson arrivals, and when each part of each answer came.

The event loop only sends, receives and takes times. An answer is read and checked in another process once it is whole,
so that the client does not hold the server up.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...clients import ClientError

T = TypeVar("T")
Ask = Callable[[int], AsyncIterator[bytes]]  # request's number -> the parts of its answer, each whole when it comes
Read = Callable[[int, list[bytes]], T]  # number, parts of its answer -> what is in it; runs in another process


@dataclass(frozen=True)
class Exchange(Generic[T]):
    """One request and its answer; times are seconds on the clock of `time.perf_counter`."""

    sent_s: float
    arrivals_s: tuple[float, ...]  # of the parts of the answer
    done_s: float
    reading: T | None  # None if it failed
    error: str | None = None

    @property
    def seconds(self) -> float:
        return self.done_s - self.sent_s


class Load(Generic[T]):
    """Sends requests and collects their exchanges.

    Args:
        ask: sends one request.
        read: reads its answer; must be picklable.
        pool: where answers are read.
        time_limit_s: no request is sent later than this after the start; those on their way are waited for.
    """

    def __init__(self, ask: Ask, read: Read[T], pool: Executor, time_limit_s: float = float("inf")) -> None:
        self._ask = ask
        self._read = read
        self._pool = pool
        self._time_limit_s = time_limit_s

    async def closed_loop(self, n_requests: int, concurrency: int) -> list[Exchange[T]]:
        """`concurrency` clients, each of which sends its next request when its last answer has come."""
        numbers = iter(range(n_requests))
        deadline = time.perf_counter() + self._time_limit_s
        readings: list[asyncio.Task[Exchange[T]]] = []

        async def client() -> None:
            for number in numbers:
                if time.perf_counter() > deadline:
                    return
                readings.append(await self._exchange(number))

        await asyncio.gather(*(client() for _ in range(concurrency)))
        return list(await asyncio.gather(*readings))

    async def poisson(self, n_requests: int, requests_per_s: float, seed: int) -> list[Exchange[T]]:
        """Requests at random times, whether or not earlier ones have been answered."""
        gaps = random.Random(seed)
        due = start = time.perf_counter()
        sending: list[asyncio.Task[asyncio.Task[Exchange[T]]]] = []
        for number in range(n_requests):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() - start > self._time_limit_s:
                break
            sending.append(asyncio.create_task(self._exchange(number)))
            due += gaps.expovariate(requests_per_s)
        return list(await asyncio.gather(*await asyncio.gather(*sending)))

    async def _exchange(self, number: int) -> "asyncio.Task[Exchange[T]]":
        """Send request `number`; returns when its answer is there, to be read by the task."""
        parts: list[bytes] = []
        arrivals: list[float] = []
        error = None
        answer = self._ask(number)
        sent = time.perf_counter()
        try:
            async for part in answer:
                arrivals.append(time.perf_counter())
                parts.append(part)
        except ClientError as failure:
            error = str(failure)
        done = time.perf_counter()
        return asyncio.create_task(self._reading(number, Exchange(sent, tuple(arrivals), done, None, error), parts))

    async def _reading(self, number: int, exchange: Exchange[T], parts: list[bytes]) -> Exchange[T]:
        if exchange.error is not None:
            return exchange
        try:
            reading = await asyncio.get_running_loop().run_in_executor(self._pool, self._read, number, parts)
        except ClientError as failure:
            return Exchange(exchange.sent_s, exchange.arrivals_s, exchange.done_s, None, str(failure))
        return Exchange(exchange.sent_s, exchange.arrivals_s, exchange.done_s, reading)


def failures(exchanges: list[Exchange[Any]]) -> dict[str, int]:
    """How many requests failed, by reason."""
    return dict(Counter(exchange.error for exchange in exchanges if exchange.error is not None).most_common())


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, on uvloop where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
