"""The end of a connection, whose last answer still has to arrive.

    close --> what was sent leaves --> end of file --> what still comes is thrown away --> the client closes
              <--------------------- so many seconds and bytes, at most, then it is cut -------------------->

A system that holds bytes which nobody has read resets a connection that is closed, and the answer that is on its way
is lost with it (RFC 9112, 9.6): the one that says why a body is not wanted, since it is just being sent. And what a
client does not read is kept until it does, which may be never.
"""

import asyncio
from collections.abc import Callable
from typing import Any

_FLUSH_SECONDS = 60.0  # in which a client must take what is left; as long as for a megabyte of an answer
_LINGER_SECONDS = 30.0  # in which what a client still sends is thrown away; nginx's
_LINGER_BYTES = 1 << 26  # of it; no usual body is larger, and what floods costs those who are served

_open: "set[ClosingTransport]" = set()


def all_has_left() -> bool:
    """Whether nothing that was sent waits in this process, and nobody is still told that a body is not wanted."""
    return not any(transport.is_lingering or transport.get_write_buffer_size() for transport in _open)


class ClosingTransport:
    """An asyncio transport; `close` is as above.

    Args:
        is_unread: whether more of a request may come.
    """

    def __init__(self, transport: Any, is_unread: Callable[[], bool]) -> None:
        self.is_lingering = False
        self._transport = transport
        self._is_unread: Callable[[], bool] = is_unread
        self._is_closing = False
        self._n_thrown_away = 0
        self._deadline: asyncio.TimerHandle | None = None
        _open.add(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if not self.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        if not self.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self.is_closing():
            return
        self._transport.resume_reading()
        self._is_closing = True
        self.is_lingering = self._is_unread() and self._transport.can_write_eof()
        seconds = _LINGER_SECONDS if self.is_lingering else _FLUSH_SECONDS
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
        if self.is_lingering:
            try:
                self._transport.write_eof()
            except OSError:  # it has just been reset
                self._transport.abort()
        else:
            self._transport.close()

    def throw_away(self, n_bytes: int) -> None:
        """To be called with what still comes."""
        self._n_thrown_away += n_bytes
        if self._n_thrown_away > _LINGER_BYTES:
            self._transport.abort()

    def lost(self) -> None:
        """To be called when the connection has ended."""
        self._is_closing = True
        self.is_lingering = False
        self._is_unread = bool  # false; and the connection is not kept until Python looks for cycles
        _open.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
