"""`/generate` around SGLang's own answer."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from sglang_moss.errors import BadReference
from sglang_moss.request.profile import TTSD
from sglang_moss.request.record import current_record
from sglang_moss.server.generate import generate_router

pytestmark = pytest.mark.wide


def test_a_stream_is_over_with_its_last_event(monkeypatch: pytest.MonkeyPatch):
    """SGLang has it wait two seconds, in which it keeps its place, and then look at what a refused request has not."""

    async def events() -> AsyncIterator[bytes]:
        yield b"data: [DONE]\n\n"

    async def answer(*_: Any) -> StreamingResponse:
        return StreamingResponse(events(), background=BackgroundTask(looked))

    def looked() -> None:
        raise AttributeError("'GenerateReqInput' object has no attribute 'is_single'")

    monkeypatch.setattr("sglang.srt.entrypoints.http_server.serve_generate_request", answer)
    app = FastAPI()
    app.include_router(generate_router(TTSD))

    async def ask() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return (await client.post("/generate", json={"text": "[S1] Hi.", "stream": True})).text

    assert asyncio.run(ask()) == "data: [DONE]\n\n"


class Held:
    """In the place of a body's values: lists and dictionaries have no weak references."""


@pytest.mark.parametrize("is_stated", [False, True])
def test_a_refusal_leaves_nothing_of_its_request_behind(monkeypatch: pytest.MonkeyPatch, is_stated: bool):
    """What it raised holds the frames that it came through, and they the body: counting alone must free it."""
    held: list[weakref.ref[Held]] = []

    async def refuses(wanted: Any, *_: Any) -> Any:
        wanted.held = value = Held()
        held.append(weakref.ref(value))
        try:
            raise BadReference.at(0, "the clip is silent", "clip_silent")
        except BadReference as error:
            current_record().keep_problem(error)
            if not is_stated:
                raise
            raise HTTPException(error.status, str(error)) from error

    monkeypatch.setattr("sglang.srt.entrypoints.http_server.serve_generate_request", refuses)
    app = FastAPI()
    app.include_router(generate_router(TTSD))

    async def ask() -> dict[str, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return (await client.post("/generate", json={"text": "[S1] Hi."})).json()["error"]

    gc.collect()
    gc.disable()
    try:
        said = asyncio.run(ask())
        assert (said["code"], held[0]()) == ("clip_silent", None)
    finally:
        gc.enable()
