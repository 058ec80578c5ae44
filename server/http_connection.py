"""One HTTP connection, as uvicorn has it, but that it always comes to an end and takes no other request with it.

    connected, or idle --> a head, in time and in bounds --> its request runs --> answered --> idle
                                       |                         |   ^ others queue up, in bounds
                                       v                         v
                                  431, or closed            client gone, or reads nothing: told to it, cut

- A head that does not come, or does not end, is not waited for: each would hold a file descriptor for ever, and the
  parser keeps all of it.
- An answer that begins before its body has come is the last one. A client that was refused sends the rest or does not
  (with `Expect: 100-continue` it need not), and what it sends next would be taken for the rest.
- A client that leaves is gone for the request that runs, not only for the one that came last.
- A fault that has been answered costs the connection nothing. Starlette answers a fault with 500, and raises it all the
  same; what runs after an answer may fail as well. uvicorn then closes what its head has said to stay open.
- What is no HTTP is told so after the answers that are due, not in the middle of them.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from starlette.datastructures import MutableHeaders
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .http_closing import ClosingTransport

logger = logging.getLogger(__name__)

_HEAD_SECONDS = 60.0  # from its first byte to its last; as nginx and Node have it
_HEAD_BYTES = 1 << 16
_STALLED_SECONDS = 90.0  # that a client takes nothing; answers of the API are given up before (`PacedSend`)
_MOST_QUEUED = 64  # requests that were sent before the one in front of them was answered
_TOO_LARGE = "431 Request Header Fields Too Large"
_NO_HTTP = "400 Bad Request"


class _TooMuch(Exception):  # noqa: N818 (stops the parser)
    """A head, or a queue, beyond its bounds."""


class BoundedConnection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser: Any
        self._running: RequestResponseCycle | None = None
        self._is_in_head = False
        self._is_in_message = False
        self._n_unfinished = 0  # bytes since the last one that completed anything
        self._is_head_too_large = False
        self._last_words: bytes | None = None  # after the answers that are due; nothing more is read
        self._head_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    # asyncio's protocol

    def connection_made(self, transport: Any) -> None:
        closing = ClosingTransport(transport, lambda: self._is_in_message or bool(self.pipeline))
        super().connection_made(cast(asyncio.Transport, closing))
        self.flow = _Flow(cast(asyncio.Transport, closing), self._has_enough)
        # Idle from the first: a proxy may keep it for its next request, as one that has served some.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        cast(ClosingTransport, self.transport).lost()
        self._unset_keepalive_if_required()
        self._head_deadline = _cancelled(self._head_deadline)
        self._write_deadline = _cancelled(self._write_deadline)
        self.pipeline.clear()
        self._leave_running()
        super().connection_lost(exc)
        cast(_Flow, self.flow).lost()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            cast(ClosingTransport, self.transport).throw_away(len(data))
            return
        if self._last_words is not None:
            return
        self._n_unfinished += len(data)
        super().data_received(data)
        if self._n_unfinished > _HEAD_BYTES and not self.transport.is_closing():
            self._is_head_too_large = True
            self.send_400_response("")
        elif not self._is_busy():
            self._expect_head()

    def eof_received(self) -> None:
        self._leave_running()
        self.transport.close()  # asyncio would, and wait for ever for a client that takes nothing more

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(_STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._write_deadline = _cancelled(self._write_deadline)
        super().resume_writing()

    # the parser's

    def on_message_begin(self) -> None:
        self._is_in_head = self._is_in_message = True
        if len(self.pipeline) >= _MOST_QUEUED:
            raise _TooMuch
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # and no trailer of a body in chunks, which is no part of the head (RFC 9110, 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > _HEAD_BYTES:
            self._is_head_too_large = True
            raise _TooMuch
        self._is_in_head = False
        self.has_progressed()
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False
        super().on_headers_complete()
        self.flow.resume_reading()  # uvicorn stops for a request that waits; a client that leaves would not be seen

    def on_message_complete(self) -> None:
        self.has_progressed()
        self._is_in_message = False
        super().on_message_complete()

    def has_progressed(self) -> None:
        """To be called with each part of a body, too: what came before it is complete."""
        self._n_unfinished = 0

    # uvicorn's

    def _should_upgrade(self) -> bool:
        """Never: no route speaks WebSocket, and a request that runs would not hear of its client any more."""
        return False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._head_deadline = _cancelled(self._head_deadline)

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            async def send_on(message: Any) -> None:
                if cycle.more_body and message["type"] == "http.response.start":
                    message = {**message, "headers": list(message.get("headers", ()))}
                    MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)

            try:
                await app(scope, receive, send_on)
            except Exception:
                if not cycle.response_complete:
                    raise  # what has come so far must not look whole
                logger.exception("%s %s failed", scope["method"], scope["path"])

        super()._start_asgi_task(cycle, answer)

    def on_response_complete(self) -> None:
        if self._running is not None:
            self._running.body = bytearray()  # which nobody has asked for
        super().on_response_complete()
        if self._is_busy() or self.transport.is_closing():
            return
        if self._last_words is not None:
            self._end()
        elif self._is_in_head:
            self._unset_keepalive_if_required()
            self._expect_head()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        """Say why no more is read, and close; `_is_head_too_large` knows why."""
        self._last_words = self._refusal()
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # the last one that came, which will never be whole
        running = self._running
        if not self._is_busy() or running is None:
            self._end()
        elif running.more_body and not running.response_started:
            self._end()
            self._leave_running()

    def shutdown(self) -> None:
        super().shutdown()
        if cast(ClosingTransport, self.transport).is_lingering:
            self.transport.abort()

    def _end(self) -> None:
        if self._last_words:
            self.transport.write(self._last_words)
        self.transport.close()

    def _refusal(self) -> bytes:
        if len(self.pipeline) >= _MOST_QUEUED:
            return b""  # the client sends again what was not answered (RFC 9112, 9.3.2)
        status = _TOO_LARGE if self._is_head_too_large else _NO_HTTP
        words = f"Invalid HTTP request received: {status[4:]}."
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(words)}\r\n"
        return f"{head}Connection: close\r\n\r\n{words}".encode()

    def _is_busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _leave_running(self) -> None:
        """The client of the request that runs is gone."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _has_enough(self) -> bool:
        """Whether enough waits for the request that runs: requests, or of the body of the last one."""
        n_queued = len(self.pipeline)
        return n_queued >= _MOST_QUEUED // 2 or (n_queued > 0 and len(self.cycle.body) > HIGH_WATER_LIMIT)

    def _expect_head(self) -> None:
        if self._head_deadline is None and self.timeout_keep_alive_task is None:
            self._head_deadline = self.loop.call_later(_HEAD_SECONDS, self.transport.close)


class _Flow(FlowControl):
    """uvicorn's, which each look for a client that has left lets read on, however much waits."""

    def __init__(self, transport: asyncio.Transport, has_enough: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._has_enough = has_enough

    def lost(self) -> None:
        """To be called when the connection has ended: it is not kept until Python looks for cycles."""
        self._has_enough = bool  # false

    def resume_reading(self) -> None:
        if not self._has_enough():
            super().resume_reading()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
