"""Labels of SGLang's HTTP metrics: patterns of our routes, whatever clients ask for."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse

from sglang_moss.server.gate.http_labels import bound

ASKED = {
    "/v1/audio/voices/alice": "/v1/audio/voices/{name}",
    "/v1/audio/voices/小明": "/v1/audio/voices/{name}",
    "/v1/audio/voices/a%0Bb": "/v1/audio/voices/{name}",
    "/v1/audio/voices/alice/clip": "/v1/audio/voices/{name}/clip",
    "/v1/models/a/b": "/v1/models/{path}",
    "/generate": "/generate",
    "/generate/": "/other",
    "/wp-login.php": "/other",
    "/%7Bname%7D": "/other",
    "//": "/other",
}


def application() -> FastAPI:
    """As SGLang's is once ours is on it: its counters, and a router that was included."""
    from sglang.srt.observability.http_request_metrics import add_http_request_metrics_middleware

    app = FastAPI()
    add_http_request_metrics_middleware(app)
    router = APIRouter()
    router.add_api_route("/v1/audio/voices/{name}", lambda name: PlainTextResponse(name))
    router.add_api_route("/generate", lambda: "spoken")
    app.include_router(router)
    return app


def count(paths: list[str], root_path: str) -> tuple[dict[str, set[tuple[str, str]]], list[str]]:
    """Labels of the counters, and the answers."""
    from prometheus_client import REGISTRY
    from sglang.srt.observability.http_request_metrics import init_http_request_metrics

    init_http_request_metrics()
    app = application()
    bound(app)

    async def ask() -> list[str]:
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return [(await client.get(root_path + path)).text for path in paths]

    answers = asyncio.run(ask())
    found: Any = {}
    for metric in REGISTRY.collect():
        if metric.name.startswith("sglang:http"):
            found[metric.name] = {(s.labels["endpoint"], s.labels["method"]) for s in metric.samples}
    return found, answers


@pytest.mark.wide
@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy"])
def test_every_request_counts_under_its_pattern_and_is_answered_as_it_was_asked(root_path: str):
    from fresh_process import in_fresh_process

    labels, answers = in_fresh_process(count, list(ASKED), root_path)
    assert labels.keys() == {"sglang:http_requests", "sglang:http_responses", "sglang:http_requests_active"}
    for found in labels.values():
        assert found == {(pattern, "GET") for pattern in ASKED.values()}
    assert answers[:3] == ["alice", "小明", "a\x0bb"]
    assert answers[5] == '"spoken"'


def test_a_release_that_counts_elsewhere_does_not_start():
    with pytest.raises(RuntimeError, match="no longer counts"):
        bound(FastAPI())
