"""`/generate` around SGLang's own answer."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from sglang_moss.errors import BadReference
from sglang_moss.processor import MossTTSDProcessor
from sglang_moss.request.preparation import Preparation
from sglang_moss.request.profile import TTSD
from sglang_moss.request.record import RequestRecord, current_record, open_record
from sglang_moss.server.generate import generate_router
from sglang_moss.server.json_body import read_json

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


class Watched(Preparation):
    """Counts."""

    def __init__(self) -> None:
        super().__init__()
        self.n_begun = self.n_ended = 0

    async def begin(self) -> None:
        self.n_begun += 1

    def end(self) -> None:
        self.n_ended += 1


@pytest.mark.parametrize(("n_bytes", "n_begun"), [(100, 1), (3_000_000, 0)])  # what is large is read in a thread
def test_a_request_waits_for_those_before_it_once_its_body_is_here(
    monkeypatch: pytest.MonkeyPatch, n_bytes: int, n_begun: int
):
    own = Watched()

    async def answer(*_: Any) -> JSONResponse:
        assert own.n_begun == n_begun
        return JSONResponse({"text": ""})

    monkeypatch.setattr("sglang.srt.entrypoints.http_server.serve_generate_request", answer)
    app = FastAPI()
    app.include_router(generate_router(TTSD))

    async def ask() -> int:
        open_record(RequestRecord(preparation=own))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            body = {"text": "[S1] Hi.", "audio_data": "A" * n_bytes}
            return (await client.post("/generate", json=body)).status_code

    assert asyncio.run(ask()) == 200


@pytest.mark.parametrize("is_refused", [False, True])
def test_the_processor_takes_requests_in_order_and_lets_the_next_one_in(
    monkeypatch: pytest.MonkeyPatch, is_refused: bool
):
    own = Watched()
    processor: Any = MossTTSDProcessor.__new__(MossTTSDProcessor)

    async def packed(*_: Any) -> str:
        assert (own.n_begun, own.n_ended) == (1, 0)
        if is_refused:
            raise BadReference.at(0, "the clip is silent", "clip_silent")
        return "packed"

    monkeypatch.setattr(processor, "_packed", packed)
    request = SimpleNamespace(text="[S1] Hi.", video_data=None)

    async def ask() -> str:
        open_record(RequestRecord(preparation=own))
        return await processor.process_mm_data_async(None, None, "", request, 100)

    if is_refused:
        with pytest.raises(BadReference):
            asyncio.run(ask())
    else:
        assert asyncio.run(ask()) == "packed"
    assert own.n_ended == 1


@pytest.mark.parametrize("is_short", [True, False])
def test_what_takes_long_is_prepared_beside_others(is_short: bool):
    own = Watched()
    processor: Any = MossTTSDProcessor.__new__(MossTTSDProcessor)

    async def ask() -> None:
        open_record(RequestRecord(preparation=own))
        with ThreadPoolExecutor(1) as processor._writers:
            assert await processor._run(is_short, lambda: own.n_ended) == (0 if is_short else 1)

    asyncio.run(ask())


def test_a_small_body_that_is_read_in_a_thread_lets_others_in():
    own = Watched()
    body = b'{"text": [%s]}' % b", ".join([b'"%b"' % (b"a" * 500)] * 1000)  # many strings, half a megabyte
    seen: list[int] = []

    def when_long() -> None:
        own.end()
        seen.append(own.n_ended)

    assert len(asyncio.run(read_json(body, when_long))["text"]) == 1000
    assert seen == [1]
    asyncio.run(read_json(b'{"text": ""}', when_long))
    assert seen == [1]


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
