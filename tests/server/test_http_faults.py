"""Faults on a real HTTP server, request after request over one connection."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_endpoints import listening
from fake_manager import FakeManager
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

from sglang_moss.server import http_protocol
from sglang_moss.server.app import add_routes

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", autouse=True)
def protocol() -> None:
    http_protocol.install()


def fail() -> None:
    raise ValueError("a fault")


async def broken() -> AsyncIterator[bytes]:
    yield b"the beginning"
    await asyncio.sleep(0)
    fail()


def application() -> FastAPI:
    app = FastAPI()
    app.get("/fails")(fail)
    app.get("/breaks")(lambda: StreamingResponse(broken()))
    app.get("/works")(lambda: "here")

    def fails_later(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "done"

    app.get("/later")(fails_later)
    return app


def asked(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def ask_in_turn(app: Any, paths: list[str]) -> list[int]:
    """The statuses of requests over one connection, that is never opened again."""
    with listening(app) as url:
        parsed = httpx.URL(url)
        connection = http.client.HTTPConnection(parsed.host, parsed.port, timeout=60)
        connection.connect()
        connection.auto_open = 0
        try:
            return [asked(connection, path)[0] for path in paths]
        finally:
            connection.close()


def test_the_next_request_over_the_connection_is_answered(caplog: pytest.LogCaptureFixture):
    paths = ["/fails", "/works", "/later", "/works", "/fails", "/fails", "/works"]
    assert ask_in_turn(application(), paths) == [500, 200, 200, 200, 500, 500, 200]
    told = [record.message for record in caplog.records if record.name.startswith("sglang_moss")]
    # What fails after its answer may be told after what was asked for next.
    assert sorted(told) == ["GET /fails failed"] * 3 + ["GET /later failed"]


def test_so_it_is_on_the_server(tmp_path: Path):
    app = FastAPI()
    app.get("/v1/loads")(fail)
    manager = FakeManager(lambda _request: [], tmp_path)
    add_routes(app, manager.server_args, manager)
    assert ask_in_turn(app, ["/v1/loads", "/v1/loads", "/v1/audio/voices"]) == [500, 500, 200]


def test_an_answer_that_breaks_off_does_not_look_whole():
    with listening(application()) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/breaks", timeout=60)
