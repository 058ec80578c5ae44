"""How much audio waits for the codec, and how long that will take: who would wait too long hears when to come again."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sglang_moss.errors import ServerBusy

_MAX_WAIT_S = 30.0
_MAX_AUDIO_S = 7200.0  # waveforms of 0.7 GB, in each of two processes
_FIRST_SPEED = 20.0  # audio seconds a second, until something has been encoded
_MEMORY = 0.9  # of what was measured, with each encoding that ends


class Backlog:
    """Audio of requests that wait for codes. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.audio_s = 0.0  # of all requests inside `waiting`
        self._clock = clock
        self._encoded_s, self._took_s = _FIRST_SPEED, 1.0  # of late
        self._n_running = 0
        self._measured_until = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the codec has done what waits."""
        return self.audio_s * self._took_s / self._encoded_s

    def check(self) -> None:
        """
        Raises:
            ServerBusy: who came now would wait too long. Nobody is refused for the length of his own clips.
        """
        if self.wait_s > _MAX_WAIT_S or self.audio_s > _MAX_AUDIO_S:
            raise ServerBusy(
                "references of other requests keep the codec busy; try again later",
                min(_MAX_WAIT_S, max(1, math.ceil(self.wait_s / 2))),
            )

    @contextmanager
    def waiting(self, audio_s: float) -> Iterator[None]:
        """While a request waits for codes of so many seconds.

        Raises:
            ServerBusy: see `check`.
        """
        if audio_s:
            self.check()
        self.audio_s += audio_s
        try:
            yield
        finally:
            self.audio_s -= audio_s

    @contextmanager
    def encoding(self, audio_s: float) -> Iterator[None]:
        """While the codec has so many seconds in hand; this is what its speed is measured by."""
        if self._n_running == 0:
            self._measured_until = self._clock()
        self._n_running += 1
        try:
            yield
            now = self._clock()
            self._encoded_s = _MEMORY * self._encoded_s + audio_s
            self._took_s = _MEMORY * self._took_s + now - self._measured_until
            self._measured_until = now
        finally:
            self._n_running -= 1
