"""Answers on their way out: what has been sent has all but left, and a client that reads nothing is given up.

A server's `send` returns as soon as a message lies in its buffer, whatever its size. So large messages go in pieces,
each of which waits for the one before it, and the end of an answer is a message of its own.
"""

import asyncio

from starlette.types import Message, Send

_PIECE_BYTES = 1 << 20


class ClientStalled(OSError):  # noqa: N818 (named for what happened)
    """The client reads nothing, or hardly anything."""


class PacedSend:
    """A `send` that takes its time.

    Args:
        piece_seconds: in which a client must take a piece of 1 MB.
    Attributes:
        is_stalled: whether it was given up.
    """

    def __init__(self, send: Send, piece_seconds: float) -> None:
        self.is_stalled = False
        self._send = send
        self._piece_seconds = piece_seconds

    async def send(self, message: Message) -> None:
        """Send an ASGI message.

        Raises:
            ClientStalled: see there.
        """
        body, more = message.get("body", b""), message.get("more_body", False)
        if message["type"] != "http.response.body" or (more and len(body) <= _PIECE_BYTES):
            await self._within(message)
            return
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            await self._within({"type": message["type"], "body": piece, "more_body": True})
        if not more:
            await self._within({"type": message["type"], "body": b"", "more_body": False})

    async def _within(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._piece_seconds):
                await self._send(message)
        except TimeoutError:
            self.is_stalled = True
            raise ClientStalled(f"the client took nothing for {self._piece_seconds:g} s") from None
