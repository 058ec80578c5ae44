"""Every route of SGLang's application that is not for clients, asked with odd bodies; and fields that ended servers."""

import asyncio
import json
import math
from collections import Counter
from typing import Any

import httpx

from .asking import client

_BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"text": "[S1] Hi.", "rid": "a", "abort_all": true}',
    b'{"action": "reset_tensors", "tags": ["weights"], "model_path": "/", "name": "x", "messages": []}',
)
_STRANGE_PATHS = 500
_CLOSED = (401, 403, 404, 405)
# Fields that SGLang reads and that poison its metrics, or end its process where they are on.
_POISON: tuple[dict[str, Any], ...] = (
    {"custom_labels": {"x": "y"}},
    {"received_time": math.nan},
    {"received_time": -1e300},
    {"external_trace_header": {"traceparent": "x"}},
    {"routing_key": "x" * 1000},
    {"log_metrics": "x"},
    {"bootstrap_room": 2**62},
)


async def knock(url: str, api_key: str | None, our_paths: set[str]) -> dict[str, Any]:
    """Ask for what is not served, and send what is not understood.

    Args:
        our_paths: of the server's OpenAPI document that clients may call.
    Returns:
        Counts: `requests`; `bad_inputs` that were refused; `wrong`: that were not; `failed`: with a status of 500 or
        above; `poisoned`: samples of `/metrics` that are no numbers any more; `multiplied`: 1 if each path that a
        stranger made up has left a sample there.
    """
    from sglang.srt.entrypoints.http_server import app

    found: Any = app.routes  # of several kinds
    routes = [(route.path, route.methods) for route in found if getattr(route, "methods", None)]
    statuses = Counter[str]()
    async with client(url, api_key) as server:

        async def count(answer: httpx.Response, refusals: tuple[int, ...]) -> None:
            is_refused = answer.status_code in refusals
            statuses["failed" if answer.status_code >= 500 else "refused" if is_refused else "wrong"] += 1

        before = await _samples(server)
        for path, methods in routes:
            if path in our_paths or path.startswith(("/health", "/docs", "/redoc", "/openapi", "/ready", "/ping")):
                continue
            for method in sorted(methods - {"HEAD"}):
                for body in _BODIES if method != "GET" else _BODIES[:1]:
                    headers = {"Content-Type": "application/json"}
                    await count(await server.request(method, path, content=body, headers=headers), _CLOSED)
        for fields in _POISON:
            body = json.dumps({"text": "[S1] Hi.", "sampling_params": {"max_new_tokens": 2}, **fields})
            headers = {"Content-Type": "application/json"}
            await count(await server.post("/generate", content=body, headers=headers), (400,))
        for i in range(_STRANGE_PATHS):
            await count(await server.get(f"/{i}.php"), _CLOSED)
        after = await _samples(server)
        poisoned = len(_no_numbers(after) - _no_numbers(before))
        grown = len(after) - len(before)
    return {
        "requests": sum(statuses.values()),
        "bad_inputs": statuses["refused"],
        "wrong": statuses["wrong"],
        "failed": statuses["failed"],
        "poisoned": poisoned,
        "multiplied": int(grown >= _STRANGE_PATHS),
    }


def _no_numbers(samples: list[tuple[str, str]]) -> set[str]:
    """Names of samples without a number; a gauge of SGLang's may be one from the start."""
    return {name for name, value in samples if value in ("NaN", "+Inf", "-Inf")}


async def _samples(server: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Names, with their labels, and values in `/metrics`."""
    lines = (await server.get("/metrics/")).text.split("\n")  # a label may hold what else ends a line
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return [(name, value) for name, value in pairs]


def knock_at_all(url: str, api_key: str | None) -> dict[str, Any]:
    """`knock` by what the server's own document lists as served to clients."""
    from ...server.gate.paths import ROUTES, Caller

    ours = {route.path for route in ROUTES if route.caller is not Caller.ADMINISTRATOR}
    return asyncio.run(knock(url, api_key, ours | {"/v1/models/{model:path}", "/"}))
