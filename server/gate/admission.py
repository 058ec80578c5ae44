"""Places in the server: a bounded number of requests runs or waits; beyond it, clients hear when to come again."""

import sys
import time
from collections import deque
from collections.abc import Callable

from sglang_moss.request.record import RequestRecord

from ..errors import QueueFull, Refused, ShuttingDown

_REMEMBERED = 64  # ends of requests that the estimate goes by
_UNKNOWN_WAIT_SECONDS = 10.0  # while nothing has ended yet
_LONGEST_WAIT_SECONDS = 300.0


class Admission:
    """Counts what is in the server. Belongs to one event loop.

    Args:
        n_places: requests that may run or wait at a time; each text of a batch is one.
        max_bytes: of the bodies of all requests that are in the server.
    """

    def __init__(
        self, n_places: int, clock: Callable[[], float] = time.monotonic, max_bytes: int = sys.maxsize
    ) -> None:
        self.n_requests = 0  # HTTP requests that are being answered
        self._n_places = n_places
        self._n_taken = 0
        self._n_bytes = 0
        self._max_bytes = max_bytes
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._closes_at: float | None = None

    def close(self, seconds: float) -> None:
        """Take nothing new from now on; what runs has `seconds` left."""
        self._closes_at = self._clock() + seconds

    @property
    def is_closed(self) -> bool:
        return self._closes_at is not None

    def check_open(self) -> None:
        """
        Raises:
            ShuttingDown: the server takes nothing new.
        """
        if self._closes_at is not None:
            raise ShuttingDown(max(0.0, self._closes_at - self._clock()))

    def check_place(self) -> None:
        """
        Raises:
            QueueFull: there is no place.
        """
        if self._n_taken >= self._n_places:
            raise self._full(1)

    def ticket(self, record: RequestRecord) -> "Ticket":
        """For one HTTP request, which must `release` at its end."""
        self.n_requests += 1
        return Ticket(self, record)

    def release(self, n_places: int, n_spoken: int, n_bytes: int) -> None:
        """A request has ended that had `n_places`, of which `n_spoken` count for how long others wait."""
        self.n_requests -= 1
        self._n_bytes -= n_bytes
        self._n_taken -= n_places
        self._ends.extend([self._clock()] * n_spoken)

    def hold(self, n_bytes: int) -> None:
        """Keep so many bytes more of a body.

        Raises:
            QueueFull: there is no room for them.
        """
        if self._n_bytes + n_bytes > self._max_bytes:
            raise QueueFull("the bodies of other requests fill the server; try again later", self._wait(1))
        self._n_bytes += n_bytes

    def take(self, n: int, n_own: int) -> None:
        """Take `n` places more, for a request that has `n_own`; one that is alone gets what it wants.

        Raises:
            QueueFull: there are not so many.
        """
        if self._n_taken + n > self._n_places and self._n_taken > n_own:
            raise self._full(n)
        self._n_taken += n

    def _full(self, n: int) -> QueueFull:
        wait = self._wait(self._n_taken + n - self._n_places)
        return QueueFull(f"all {self._n_places} places of the server are taken; try again later", wait)

    def _wait(self, n: int) -> float:
        """Seconds in which so many places became free of late."""
        if not self._ends:
            return _UNKNOWN_WAIT_SECONDS
        return min(_LONGEST_WAIT_SECONDS, (self._clock() - self._ends[0]) / len(self._ends) * n)


class Ticket:
    """The places of one HTTP request.

    Attributes:
        refusal: why it is not served.
    """

    def __init__(self, admission: Admission, record: RequestRecord) -> None:
        self.refusal: Refused | None = None
        self._admission = admission
        self._record = record
        self._n_places = 0
        self._n_bytes = 0
        self._is_released = False

    def claim(self, n: int) -> None:
        """Have at least `n` places altogether.

        Raises:
            QueueFull: there are not so many.
        """
        if n <= self._n_places or self._is_released:
            return
        try:
            self._admission.take(n - self._n_places, self._n_places)
        except QueueFull as error:
            self.refuse(error)
            raise
        self._n_places = n

    def hold(self, n_bytes: int) -> None:
        """Keep so many bytes more of the body, until it leaves.

        Raises:
            QueueFull: there is no room for them.
        """
        if self._is_released:
            return
        self._admission.hold(n_bytes)
        self._n_bytes += n_bytes

    def refuse(self, error: Refused) -> None:
        self.refusal = error
        self._record.refusal = error.code

    def release(self) -> None:
        """Give all places back; the second time it does nothing."""
        if not self._is_released:
            self._is_released = True
            n_spoken = self._n_places if self._record.audio_seconds else 0
            self._admission.release(self._n_places, n_spoken, self._n_bytes)
