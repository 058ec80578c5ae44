"""So many requests a minute for each client."""

import time
from collections import OrderedDict
from collections.abc import Callable

from ..errors import RateLimited

_WINDOW_SECONDS = 60.0
_MAX_CLIENTS = 100_000  # known at a time; beyond them, who has been quiet longest is forgotten


class RateLimit:
    """A token bucket for each client: a minute's requests at once, then one as often as the limit says.

    Args:
        per_minute: requests, at least 1.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._interval = _WINDOW_SECONDS / per_minute
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when each bucket will be full again

    def take(self, client: str) -> None:
        """Count a request of `client`.

        Raises:
            RateLimited: it has none left; such requests are not counted.
        """
        now = self._clock()
        full_at = max(self._full_at.get(client, now), now) + self._interval
        excess = full_at - now - _WINDOW_SECONDS
        if excess > 1e-6:
            raise RateLimited(f"at most {self._per_minute} requests a minute for one client", excess)
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        while len(self._full_at) > _MAX_CLIENTS or next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)
