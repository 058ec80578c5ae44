"""`/generate` around SGLang's own answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from sglang_moss.request.profile import TTSD
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
