"""Listeners who come at random times, as many as a load says, until it is known whether a promise is kept."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass

from ...clients import ClientError
from ..loads.speech_reading import SpeechReading
from .listener import Listener, Stream
from .promise import Heard, Promise, Window, in_window, is_lost

_LOOK_S = 0.25  # between two looks at how the streams are
_AHEAD = 8  # bodies that are made before they are due; one has a megabyte
_HOPELESS_S = 10.0  # a first audio that is this late says enough


@dataclass(frozen=True)
class ListeningLoad:
    """What a load consists of.

    Attributes:
        ask: sends an encoded request that streams; its events.
        body: makes one by its number, in a worker process; whether its voices are new.
        read: checks the events of a stream that has ended, in a worker process; None: nothing is checked.
    """

    ask: Callable[[bytes], AsyncGenerator[bytes, None]]
    body: Callable[[int], tuple[bytes, bool]]
    read: Callable[[int, list[bytes]], SpeechReading] | None
    listener: Listener
    pool: Executor

    async def run(self, rate: float, window: Window, promise: Promise, seed: int) -> Heard:
        """Streams that are asked for `rate` times a second; the load is taken away when all that counts is known."""
        due = arrivals(rate, window.all_s, seed)
        n_due = sum(window.warm_up_s <= t < window.end_s for t in due)
        run = _Run(self, window, promise, n_due)
        try:
            await run.send(due)
        finally:
            await run.stop()
        return run.heard()


class _Run:
    """One load under way."""

    def __init__(self, load: ListeningLoad, window: Window, promise: Promise, n_due: int) -> None:
        self._load, self._window, self._promise, self._n_due = load, window, promise, n_due
        self._streams: list[Stream] = []
        self._counted: list[Stream] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._problems: dict[int, str] = {}
        self._new_voice: set[int] = set()
        self._lags_s: list[float] = []
        self._began_s = self._ended_s = 0.0
        self._looked_s = float("-inf")  # when it was last asked whether all is known, which takes all streams

    async def send(self, due: list[float]) -> None:
        bodies = self._bodies(len(due))
        next_body = next(bodies, None)
        if next_body is not None:
            await next_body  # the first ones need their workers
        self._began_s = time.perf_counter()
        for number, at in enumerate(due):
            assert next_body is not None
            body, is_new = await next_body
            next_body = next(bodies, None)
            if await self._is_over_by(at):
                return
            stream = Stream(number, time.perf_counter())
            self._lags_s.append(stream.asked_s - self._began_s - at)
            self._streams.append(stream)
            if in_window(stream, self._began_s, self._window):
                self._counted.append(stream)
            if is_new:
                self._new_voice.add(number)
            self._tasks.append(asyncio.create_task(self._listen(stream, body)))
        await self._is_over_by(self._window.all_s)

    def _bodies(self, n: int) -> "Iterator[asyncio.Future[tuple[bytes, bool]]]":
        """Of all requests in turn, some made ahead."""
        loop = asyncio.get_running_loop()
        made = (loop.run_in_executor(self._load.pool, self._load.body, number) for number in range(n))
        ahead = list(itertools.islice(made, _AHEAD))
        while ahead:
            ahead += itertools.islice(made, 1)
            yield ahead.pop(0)

    async def _is_over_by(self, at: float) -> bool:
        """Wait until `at` seconds after the beginning; true: before that, all that counts is known."""
        while True:
            now = time.perf_counter()
            if now - self._looked_s >= _LOOK_S:
                self._looked_s = now
                if self._is_known(now):
                    return True
            left = self._began_s + at - now
            if left <= 0:
                return False
            await asyncio.sleep(min(left, _LOOK_S))

    def _is_known(self, now: float) -> bool:
        if is_lost(self._counted, self._n_due, self._promise, now):
            return True
        if any(not s.arrivals_s and s.error is None and s.first_audio(now) > _HOPELESS_S for s in self._streams):
            return True
        is_past = now - self._began_s >= self._window.end_s
        return is_past and all(stream.is_whole or stream.error is not None for stream in self._counted)

    async def _listen(self, stream: Stream, body: bytes) -> None:
        async with aclosing(self._load.ask(body)) as events:  # also of a listener who is taken away
            await self._load.listener.listen(stream, events)
        parts, stream.parts = stream.parts, []
        if self._load.read is None or stream.error is not None:
            return
        if not in_window(stream, self._began_s, self._window):
            return
        try:
            loop = asyncio.get_running_loop()
            reading = await loop.run_in_executor(self._load.pool, self._load.read, stream.number, parts)
        except ClientError as failure:
            self._problems[stream.number] = str(failure)
            return
        if reading.problem is not None:
            self._problems[stream.number] = reading.problem

    async def stop(self) -> None:
        """Leave every stream that is still under way."""
        self._ended_s = time.perf_counter()
        for task, stream in zip(self._tasks, self._streams, strict=True):
            if not stream.is_whole:  # else its audio is being checked
                task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    def heard(self) -> Heard:
        return Heard(
            self._streams,
            self._n_due,
            self._window,
            self._began_s,
            self._ended_s,
            self._problems,
            frozenset(self._new_voice),
            self._lags_s,
        )


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Times below `seconds` of a Poisson process; one seed gives one pattern, which a higher rate presses together."""
    gaps, times = random.Random(seed), []
    now = gaps.expovariate(1.0) / rate
    while now < seconds:
        times.append(now)
        now += gaps.expovariate(1.0) / rate
    return times
