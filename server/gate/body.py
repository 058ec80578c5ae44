"""The body of a request: bounded in size and time, before anybody parses it."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from ..errors import BodyTooLarge, BodyTooSlow, Refused
from .admission import Ticket


class BoundedBody:
    """Receives for an application; raises, and remembers as `refusal`, what keeps the request from being served.

    Args:
        max_bytes: of the body, announced or not.
        max_seconds: in which all of it must have come.
        ticket: of the request; holds the bytes that have come, and leaves with the client.
        needs_place: whether the request takes a place once all of its body has come.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        max_bytes: int,
        max_seconds: float,
        ticket: Ticket,
        needs_place: bool,
    ) -> None:
        self._is_whole = False
        self.refusal: Refused | None = None
        self._announced = Headers(scope=scope).get("content-length", "")
        self._receive = receive
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._ticket = ticket
        self._needs_place = needs_place
        self._deadline = asyncio.get_running_loop().time() + max_seconds
        self._n_bytes = 0

    def check_announced(self) -> None:
        """Refuse by the header alone.

        Raises:
            BodyTooLarge: it announces too much.
        """
        if self._announced.isdecimal() and int(self._announced) > self._max_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next ASGI message.

        Raises:
            Refused: the request will not be served.
        """
        try:
            message = await (self._receive() if self._is_whole else self._receive_body())
        except Refused as error:
            self.refusal = error
            raise
        if message["type"] == "http.disconnect":
            self._ticket.release()
        return message

    async def _receive_body(self) -> Message:
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive within {self._max_seconds:g} s") from None
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._max_bytes:
            raise self._too_large()
        self._ticket.hold(len(message.get("body", b"")))
        if not message.get("more_body", False):
            self._is_whole = True
            if message["type"] == "http.request":
                self._ticket.claim(self._needs_place)
        return message

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"a body has at most {self._max_bytes} bytes here")
