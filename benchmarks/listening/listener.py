"""Listeners in real time: what one has heard of its stream, and whether it had to wait in the middle.

A listener plays from the first audio on and reads no further ahead than its buffer holds, so that a server which is
early is read slowly. It has a gap where a sample is not there when it is to be played.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from ...clients import ClientError


@dataclass
class Stream:
    """One stream; times are seconds on the listener's clock.

    Attributes:
        arrivals_s: of parts with audio, from the one with which playback began.
        part_seconds: of audio in each of them.
        parts: the events as they came, those without audio too.
        is_whole: the server has ended it.
        marks: when its first sound passed each place on its way; empty where that is not asked for.
    """

    number: int
    asked_s: float
    arrivals_s: list[float] = field(default_factory=list)
    part_seconds: list[float] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list, repr=False)
    is_whole: bool = False
    error: str | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    played_until_s: float = 0.0  # when the audio that has come will have been played
    _longest_wait_s: float = float("-inf")

    def add(self, now: float, seconds: float) -> None:
        """Audio of `seconds` has come."""
        if self.arrivals_s:
            self._longest_wait_s = max(self._longest_wait_s, now - self.played_until_s)
        self.arrivals_s.append(now)
        self.part_seconds.append(seconds)
        self.played_until_s = max(now, self.played_until_s) + seconds

    def first_audio(self, now: float) -> float:
        """Seconds from the question to the first audio, or to `now` while there is none."""
        return (self.arrivals_s[0] if self.arrivals_s else now) - self.asked_s

    def wait(self, now: float) -> float:
        """The longest wait of its listener so far, as in `load_statistics.longest_wait`; one that goes on counts."""
        if self.is_whole or not self.arrivals_s:
            return self._longest_wait_s
        return max(self._longest_wait_s, now - self.played_until_s)

    def listened(self, start: float, end: float) -> float:
        """Seconds between `start` and `end` in which somebody listened to it, gaps included."""
        if not self.arrivals_s:
            return 0.0
        until = self.played_until_s if self.is_whole or self.error else max(self.played_until_s, end)
        return max(0.0, min(end, until) - max(start, self.arrivals_s[0]))


@dataclass(frozen=True)
class Listener:
    """How streams are listened to.

    Attributes:
        seconds_so_far: audio in an answer up to an event, read off that event; None: it does not say.
        buffer_s: audio that a listener holds beyond what it plays before it stops to read.
        start_s: audio that must be there before playback begins; 0: the first is enough.
        marks: what the event with the first sound tells of its way; None: nothing is asked.
    """

    seconds_so_far: Callable[[bytes], float | None]
    buffer_s: float
    start_s: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    marks: Callable[[bytes], Mapping[str, float]] | None = None

    async def listen(self, stream: Stream, events: AsyncIterator[bytes]) -> None:
        """Listen to the end; a failure becomes the stream's `error`."""
        added = 0.0
        try:
            async for event in events:
                now = self.clock()
                stream.parts.append(event)
                total = self.seconds_so_far(event)
                if total is not None and total > added and (stream.arrivals_s or total >= self.start_s):
                    if self.marks is not None and not stream.arrivals_s:
                        stream.marks = self.marks(event)
                    stream.add(now, total - added)
                    added = total
                if stream.arrivals_s and (ahead := stream.played_until_s - now - self.buffer_s) > 0:
                    await self.sleep(ahead)
            stream.is_whole = True
        except ClientError as failure:
            stream.error = str(failure)
