"""HTTP as uvicorn speaks it, but for offers of another protocol, bodies of megabytes, and idle connections.

An offer does not cost the body of the request:

    POST /v1/audio/speech HTTP/1.1        what every `java.net.http.HttpClient` sends first over plain HTTP;
    Connection: Upgrade, HTTP2-Settings   its parser stops at the end of the head, since all that follows might be
    Upgrade: h2c                          of the other protocol, and the route would see an empty body
    HTTP2-Settings: AAEAAEAA...

A server may ignore such an offer, and then answers the request as if it had not been made (RFC 9110, 7.8). So the head
is read again without it, by a parser that then goes on to the body. So with WebSocket, which no route speaks.

A body is handed on in pieces of some two megabytes, as far as it has come: uvicorn stops reading at 64 KB, and each
piece costs a turn of the event loop, through all layers. Until it is handed on it is kept as it came, not copied.

A connection stays open longer than the usual client or proxy keeps an idle one. Where the server is the first to close
it, a request that is sent just then is lost, and speech is nothing that a proxy asks for a second time by itself.
"""

import asyncio
from typing import Any, cast

import httptools
from sglang.srt.environ import envs
from uvicorn.config import HTTP_PROTOCOLS, Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .http_connection import BoundedConnection

_OFFERS = (b"upgrade", b"http2-settings")  # headers that only speak of the other protocol
_SMALL_BYTES = 1 << 12
_PIECE_BYTES = 1 << 21  # of a body: no more is read before the application has taken it
_IDLE_SECONDS = 180  # httpx and Python's `openai` keep 5, nginx and AWS's balancer 60, Go 90, Caddy 120


def install() -> None:
    """Let the uvicorn servers of this process speak it."""
    HTTP_PROTOCOLS["auto"] = f"{OfferIgnoringProtocol.__module__}:{OfferIgnoringProtocol.__qualname__}"
    if not envs.SGLANG_TIMEOUT_KEEP_ALIVE.is_set():
        envs.SGLANG_TIMEOUT_KEEP_ALIVE.set(_IDLE_SECONDS)


def a_connection() -> HttpToolsProtocol:
    """One of uvicorn's, not connected: what is relied upon can be looked for in it."""
    loop = asyncio.new_event_loop()
    try:
        return HttpToolsProtocol(Config(_no_application, log_config=None), ServerState(), {}, loop)
    finally:
        loop.close()


async def _no_application(_scope: Any, _receive: Any, _send: Any) -> None: ...


class OfferIgnoringProtocol(BoundedConnection):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser: Any = _Parser(self)

    def on_headers_complete(self) -> None:
        if not self._is_ignored():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._is_ignored():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self.has_progressed()
        cycle = self.cycle
        if cycle.response_complete:
            return
        if not isinstance(cycle.body, _Pieces):  # the first since the application has taken any
            cycle.body = cast(bytearray, _Pieces())
        cycle.body += body
        if len(cycle.body) > _PIECE_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def head_without_offer(self) -> bytes | None:
        """The head that has just been read, if it holds an offer that is ignored."""
        if not self._is_ignored():
            return None
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] not in _OFFERS]
        return b"\r\n".join([*lines, b"", b""])

    def _is_ignored(self) -> bool:
        is_offer = any(name == b"upgrade" for name, _value in self.headers)  # a CONNECT has none
        return is_offer and self.parser.should_upgrade()


class _Pieces:
    """What uvicorn does with the bytearray in which it gathers a body: append, measure, take out."""

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._length = 0

    def __iadd__(self, piece: bytes) -> "_Pieces":
        last = self._pieces[-1] if self._pieces else None
        if len(piece) >= _SMALL_BYTES:
            self._pieces.append(piece)
        elif isinstance(last, bytearray) and len(last) < _PIECE_BYTES:
            last += piece
        else:
            self._pieces.append(bytearray(piece))  # what comes in crumbs is gathered: each would be an object
        self._length += len(piece)
        return self

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)  # one that is alone is not copied


class _Parser:
    """httptools' parser for `OfferIgnoringProtocol`; each offer that is ignored takes a new one."""

    def __init__(self, protocol: OfferIgnoringProtocol) -> None:
        self._protocol = protocol
        self._parser = _new_parser(protocol)

    def feed_data(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                head = self._protocol.head_without_offer()
                if head is None:
                    raise
                self._parser = _new_parser(self._protocol)
                data = head + data[upgrade.args[0] :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _new_parser(protocol: OfferIgnoringProtocol) -> Any:
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
    return parser
