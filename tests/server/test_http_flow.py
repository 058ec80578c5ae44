"""What a connection keeps: of requests that wait for the one that runs, that are over, and of clients that left."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from sglang_moss.server import http_closing, http_connection
from sglang_moss.server.http_protocol import OfferIgnoringProtocol

pytestmark = pytest.mark.wide

PIECE = bytes(100_000)


class Transport:
    """Keeps what was written; the client's bytes come as long as they are read."""

    def __init__(self) -> None:
        self.written = b""
        self.reads = True
        self.is_closed = False
        self.is_aborted = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def connection(app: Any) -> OfferIgnoringProtocol:
    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    config.load()
    return OfferIgnoringProtocol(config, ServerState(), {})


def on_a_connection(
    app: Any, use: Callable[[OfferIgnoringProtocol, Transport], Awaitable[None]], transport: Transport | None = None
) -> None:
    transport = transport or Transport()

    async def run() -> None:
        protocol = connection(app)
        protocol.connection_made(transport)
        try:
            await use(protocol, transport)
        finally:
            protocol.connection_lost(None)

    asyncio.run(run())


async def answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def test_a_request_that_waits_does_not_gather_its_body_however_often_the_one_before_it_looks_for_its_client():
    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        go_on = asyncio.Event()
        n_sent = 0

        async def app(_scope: Any, receive: Any, _send: Any) -> None:
            await receive()
            for _ in range(100):
                looking = asyncio.create_task(receive())
                await asyncio.sleep(0)
                looking.cancel()
                send_more()
            go_on.set()
            await asyncio.sleep(600)

        def send_more() -> None:
            nonlocal n_sent
            if transport.reads:
                protocol.data_received(PIECE)
                n_sent += len(PIECE)

        protocol.app = app
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\nPOST /second HTTP/1.1\r\nContent-Length: 99000000\r\n\r\n")
        await asyncio.wait_for(go_on.wait(), 60)
        assert 0 < n_sent < 30 * len(PIECE)  # of 100

    on_a_connection(None, use)


def test_a_client_is_watched_while_a_request_waits_for_the_one_that_runs():
    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        is_looking, left = asyncio.Event(), asyncio.Event()

        async def app(_scope: Any, receive: Any, _send: Any) -> None:
            await receive()
            asyncio.get_running_loop().call_soon(is_looking.set)
            assert (await receive())["type"] == "http.disconnect"
            left.set()

        protocol.app = app
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(is_looking.wait(), 60)
        protocol.data_received(b"GET /second HTTP/1.1\r\n\r\n")
        assert transport.reads  # else nobody is told that the client is gone
        protocol.data_received(b"GET /another HTTP/1.1\r\n\r\n" * (http_connection._MOST_QUEUED // 2))
        assert not transport.reads
        protocol.connection_lost(None)
        await asyncio.wait_for(left.wait(), 60)

    on_a_connection(None, use)


def test_many_requests_that_are_sent_ahead_are_all_answered():
    n_requests = 3 * http_connection._MOST_QUEUED

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await answer(send)

    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        n_sent = 0
        while transport.written.count(b" 200 ") < n_requests:
            if transport.reads and n_sent < n_requests:
                protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
                n_sent += 1
            else:
                await asyncio.sleep(0)
        assert not transport.is_closed

    on_a_connection(app, use)


def test_a_body_that_nobody_asked_for_goes_with_its_request():
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send)

    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + PIECE)
        while not transport.written:
            await asyncio.sleep(0)
        assert not transport.is_closed
        assert len(protocol.cycle.body) == 0

    on_a_connection(app, use)


def test_a_client_that_has_sent_too_much_ahead_is_read_on_until_its_answers_have_arrived():
    go, at_end = asyncio.Event(), asyncio.Event()

    class Sockets(Transport):
        def can_write_eof(self) -> bool:
            return True

        def write_eof(self) -> None:
            at_end.set()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n" * (http_connection._MOST_QUEUED + 5))
        go.set()
        await asyncio.wait_for(at_end.wait(), 60)
        assert transport.written.count(b" 200 ") == http_connection._MOST_QUEUED + 1
        assert not transport.is_closed

    on_a_connection(app, use, Sockets())


def test_a_connection_that_has_ended_is_not_kept_until_python_looks_for_cycles():
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send)

    async def run() -> None:
        protocol, transport = connection(app), Transport()
        protocol.connection_made(transport)
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        while protocol.tasks:
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        left = weakref.ref(protocol)
        del protocol
        await asyncio.sleep(0)
        assert left() is None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()


def test_a_connection_that_was_reset_leaves_no_timer_that_keeps_it():
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send)

    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        while not transport.written:
            await asyncio.sleep(0)
        assert protocol.timeout_keep_alive_task is not None
        protocol.connection_lost(ConnectionResetError())
        assert protocol.timeout_keep_alive_task is None

    on_a_connection(app, use)


def test_a_client_that_sends_no_more_and_takes_no_more_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_closing, "_FLUSH_SECONDS", 0.0)
    told = asyncio.Event()

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    async def use(protocol: OfferIgnoringProtocol, transport: Transport) -> None:
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0)
        protocol.eof_received()
        await asyncio.wait_for(told.wait(), 60)
        while not transport.is_aborted:
            await asyncio.sleep(0)

    on_a_connection(app, use)
