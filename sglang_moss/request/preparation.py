"""The order in which requests are prepared that have come whole: first come, first ready.

To check a request and to write its prompt is work of one thread, in stages between which others come in. If those that
come together took turns, all of them would be ready when the last one is, and the GPU would wait until then; so each
stage of one comes before the stages of those that came after it.
"""

import asyncio
import contextlib

# One more than one, since a request may wait for another thread on its way, to look at a file.
_AT_A_TIME = 2
# Longer nobody waits for others, whatever keeps them: order is a courtesy.
_PATIENCE_S = 2.0


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
        self._has_begun = self._has_place = False

    async def begin(self) -> None:
        """Wait for those that came before."""
        if self._has_begun or self._places is None:
            return
        self._has_begun = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S if self._places.locked() else None):
                self._has_place = await self._places.acquire()

    def end(self) -> None:
        """Let the next one in: what is left is done, or takes long, and in other threads."""
        self._has_begun = True
        if self._has_place and self._places is not None:
            self._has_place = False
            self._places.release()
