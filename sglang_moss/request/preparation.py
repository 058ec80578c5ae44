"""The order in which requests are prepared that have come whole: first come, first ready.

To check a request and to write its prompt is work of one thread, in stages between which others come in. If those that
come together took turns, all of them would be ready when the last one is, and the GPU would wait until then; so each
stage of one comes before the stages of those that came after it. Of a batch, and of a speech in parts, the first entry
has its place in the order, and the others come as they may.
"""

import asyncio

# One more than one, since a request may wait for another thread on its way, to look at a file.
_AT_A_TIME = 2
# Some milliseconds are usual. Who takes longer waits for something, and others no longer wait for that.
_LONGEST_S = 0.25


class PreparationOrder:
    """Of the requests of one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_A_TIME)

    def preparation(self) -> "Preparation":
        """Of one request; it has to be ended, at the latest with the request."""
        return Preparation(self._places)


class Preparation:
    """Begins once and ends once; more than that is harmless.

    Args:
        places: of those that are prepared now; None: there is no order.
    """

    def __init__(self, places: asyncio.Semaphore | None = None) -> None:
        self._places = places
        self._has_begun = self._has_ended = False
        self._end: asyncio.TimerHandle | None = None  # while it has a place

    @property
    def has_place(self) -> bool:
        return self._end is not None

    async def begin(self) -> None:
        """Wait for those that came before."""
        if self._has_begun or self._has_ended or self._places is None:
            return
        self._has_begun = True
        await self._places.acquire()
        if self._has_ended:
            self._places.release()
        else:
            self._end = asyncio.get_running_loop().call_later(_LONGEST_S, self.end)

    def end(self) -> None:
        """Let the next one in: what is left is done, or takes long, and in other threads."""
        self._has_ended = True
        if self._end is not None and self._places is not None:
            self._end.cancel()
            self._end = None
            self._places.release()
