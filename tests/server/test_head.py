"""HEAD has the head of GET, and nothing else."""

import asyncio
from pathlib import Path

import httpx
import pytest
from fake_manager import FakeManager
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from sglang_moss.server.app import add_routes
from sglang_moss.server.head import HeadAsGet

pytestmark = pytest.mark.wide


def asked(app: FastAPI, method: str, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


def application() -> FastAPI:
    app = FastAPI()
    app.add_middleware(HeadAsGet)
    app.get("/whole")(lambda: {"is": "here"})
    app.get("/stream")(lambda: StreamingResponse(iter(["one", "two"]), headers={"X-Name": "a"}))
    app.post("/write")(lambda: "written")
    return app


@pytest.mark.parametrize("path", ["/whole", "/stream", "/nowhere", "/write"])
def test_it_has_the_head_of_get_and_no_body(path: str):
    head, get = asked(application(), "HEAD", path), asked(application(), "GET", path)
    assert (head.status_code, head.headers) == (get.status_code, get.headers)
    assert head.content == b""
    assert get.content


def test_other_methods_are_as_they_were():
    assert asked(application(), "POST", "/write").json() == "written"
    assert asked(application(), "PUT", "/whole").status_code == 405


def test_the_server_answers_it(tmp_path: Path):
    app = FastAPI()
    app.get("/v1/models")(lambda: {"object": "list"})
    manager = FakeManager(lambda _request: [], tmp_path)
    add_routes(app, manager.server_args, manager)
    for path in ("/v1/models", "/v1/audio/voices", "/"):
        answer = asked(app, "HEAD", path)
        assert (answer.status_code, answer.content) == (200, b""), path
