"""`/docs`, `/redoc` and `/openapi.json`: what this server takes, from files that ship with a dependency.

SGLang's own pages load their scripts from elsewhere and list its administration. These need no key, as the page: they
say what is asked for and hold no data.
"""

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sglang_moss import __version__

from .gate.paths import PROFILE, SPEECH, VOICES, Caller, path_of, routes_at

_PATHS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
_FILES = "/docs/files"
_TAGS = {
    "Speech": "OpenAI's speech API, and what it has besides.",
    "Generate": "SGLang's own route: scripts with speaker tags, settings of every channel, batches.",
    "Voices": "Stored clips that scripts name.",
    "Server": "Models, load, health and metrics.",
}
_REFERENCE = re.compile(r'"#/components/schemas/([^"]+)"')
# Of a route with several methods, FastAPI takes any of them.
_METHOD = re.compile(r"_(?:get|head|post|put|patch|delete|options|trace)$")
_KEY = "key"
_SECURITY = {
    _KEY: {"type": "http", "scheme": "bearer", "description": "The value of `--api-key`, if the server has one."}
}
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"object-src 'none'"
)


class ApiPages:
    """ASGI middleware that answers the API's description itself.

    Args:
        app: what answers everything else.
        api: the application whose routes are described, as far as clients may call them.
    """

    def __init__(self, app: ASGIApp, api: FastAPI) -> None:
        self._app = app
        self._pages = FastAPIOffline(title="sglang-moss", version=__version__, static_url=_FILES)
        described = describe(api)
        self._pages.openapi = lambda: described

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and _is_page(path_of(scope))
        if not is_ours:
            await self._app(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        reads = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # the server sends no body then
        await self._pages(reads, receive, send_with_policy)


def describe(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of what clients may call of an application: ours first, each with its key."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate Operation ID")  # of routes with two methods; named apart below
        whole = get_openapi(
            title="sglang-moss",
            version=__version__,
            description="Dialogue speech with MOSS-TTSD.",
            routes=api.routes,
            tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        )
    order = list(_TAGS)
    served = {path: kept for path, methods in whole["paths"].items() if (kept := _for_clients(path, methods))}
    whole["paths"] = dict(sorted(served.items(), key=lambda item: order.index(_tag(item[0]))))
    for path, method, operation in _operations(whole["paths"]):
        operation["tags"] = [_tag(path)]
        operation["operationId"] = _METHOD.sub(f"_{method}", operation["operationId"])
        if routes_at(path)[0].caller is Caller.CLIENT:
            operation["security"] = [{_KEY: []}]
    schemas = whole.get("components", {}).get("schemas", {})
    whole["components"] = {"schemas": _mentioned(whole["paths"], schemas), "securitySchemes": _SECURITY}
    return whole


def _is_page(path: str) -> bool:
    return path in _PATHS or path.startswith(f"{_FILES}/")


def _for_clients(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    """The operations of a path that the gate lets clients through to, POST before PUT."""
    served = {m.lower() for route in routes_at(path) if route.caller is not Caller.ADMINISTRATOR for m in route.methods}
    return {method: methods[method] for method in sorted(methods) if method in served}


def _mentioned(described: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Of all schemas those that a description refers to, and those that these refer to."""
    found: dict[str, Any] = {}
    waiting = [described]
    while waiting:
        for name in _REFERENCE.findall(json.dumps(waiting.pop())):
            if name not in found:
                found[name] = schemas[name]
                waiting.append(schemas[name])
    return found


def _operations(paths: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield path, method, operation


def _tag(path: str) -> str:
    if path.startswith(VOICES):
        return "Voices"
    return {SPEECH: "Speech", PROFILE: "Speech", "/generate": "Generate"}.get(path, "Server")
