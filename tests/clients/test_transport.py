"""A connection for each request that runs, and the same ones again for the next requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from sglang_moss.clients.connection import connection
from sglang_moss.clients.transport import OneEach, many_at_once

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """Counts connections; `/cut` breaks off in the middle, everything else answers once `go` is set."""

    def __init__(self) -> None:
        self.n_connections = 0
        self.n_left = 0
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self.go.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
                if b"/cut" in head:
                    return
                writer.write(b"good")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.n_left += 1

    async def all_left(self, but: int = 0) -> None:
        while self.n_left < self.n_connections - but:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with many_at_once(**connection(f"http://127.0.0.1:{port}", None, 10)) as client:
        yield server, client
    listening.close()


async def test_requests_at_once_have_a_connection_each_and_the_next_ones_the_same():
    async with serving() as (server, client):
        asking = [asyncio.create_task(client.get("/")) for _ in range(7)]
        while server.n_connections < 7:
            await asyncio.sleep(0.01)
        server.go.set()
        assert {response.text for response in await asyncio.gather(*asking)} == {"good"}
        for _ in range(5):
            assert (await client.get("/")).text == "good"
        assert server.n_connections == 7


async def test_a_request_after_a_broken_one_connects_anew():
    async with serving() as (server, client):
        server.go.set()
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/cut")
        assert (await client.get("/")).text == "good"
        assert server.n_connections == 2


async def test_an_answer_that_is_left_early_gives_its_connection_back_once():
    async with serving() as (server, client):
        server.go.set()
        async with client.stream("GET", "/") as response:
            assert response.is_success
        await response.aclose()
        answers = await asyncio.gather(*[client.get("/") for _ in range(2)])
        assert [answer.text for answer in answers] == ["good", "good"]


async def test_connections_that_nobody_needs_are_closed():
    async with serving() as (server, client):
        server.go.set()
        transport = client._transport
        assert isinstance(transport, OneEach)
        await asyncio.gather(*[client.get("/") for _ in range(9)])
        transport._kept_s = 0.0
        await client.get("/")
        assert len(transport._idle) <= 1
        await asyncio.wait_for(server.all_left(but=1), 60)


async def test_a_client_that_is_closed_leaves_no_connection_of_a_request_under_way():
    async with serving() as (server, client):
        asking = asyncio.create_task(client.get("/"))
        while server.n_connections < 1:
            await asyncio.sleep(0.01)
        await client.aclose()
        server.go.set()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(server.all_left(), 60)


async def test_a_request_that_is_given_up_takes_its_connection_with_it():
    async with serving() as (server, client):
        asking = asyncio.create_task(client.get("/"))
        while server.n_connections < 1:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        server.go.set()
        assert (await client.get("/")).text == "good"
        await asyncio.wait_for(server.all_left(but=1), 60)


async def test_a_connection_whose_answer_is_not_left_in_peace_serves_nobody_else():
    class Body(httpx.AsyncByteStream):
        async def aclose(self) -> None:
            await asyncio.sleep(60)

    class Connection(httpx.AsyncHTTPTransport):
        is_closed = False

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Body(), request=request)

        async def aclose(self) -> None:
            self.is_closed = True

    connection, pool = Connection(), OneEach(False, 10.0)
    pool._connection = lambda: connection
    response = await pool.handle_async_request(httpx.Request("GET", "http://a/"))
    leaving = asyncio.create_task(response.aclose())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert connection.is_closed
    assert not pool._idle


async def test_where_nobody_listens_it_is_httpx_that_says_so():
    async with many_at_once(**connection("http://127.0.0.1:9", None, 10)) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.get("/")


async def test_a_proxy_of_the_environment_is_still_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with many_at_once(**connection("http://far.example", None, 10)) as client:
        assert not isinstance(client._transport, OneEach)
        with pytest.raises(httpx.ConnectError):
            await client.get("/")
