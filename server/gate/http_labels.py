"""SGLang's HTTP metrics with labels from our list of routes: a client chooses none.

SGLang labels its counters with the path of a request where it finds no route, and it finds none of a router that was
included. Each path that a stranger asks for would be a line of `/metrics` for ever, and a voice's name a label.
"""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request

from .paths import path_of, routes_at

OTHER = "other"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_COUNTS = "sglang.srt.observability.http_request_metrics"
Dispatch = Callable[[Request, Callable[[Request], Awaitable[Any]]], Awaitable[Any]]


def bound(app: FastAPI) -> None:
    """Let SGLang's counters see the pattern of a request's route and nothing else of its path.

    Raises:
        RuntimeError: SGLang does not count where it did; the server must not start.
    """
    found = [layer for layer in app.user_middleware if _dispatch_of(layer) is not None]
    if not found:
        raise RuntimeError("SGLang no longer counts HTTP requests in a middleware of its application")
    app.user_middleware = [_bounded(layer) if layer in found else layer for layer in app.user_middleware]


def shown(request: Request) -> Request:
    """A request with the same headers, whose path is that of its route in our list, or `other`."""
    routes = routes_at(path_of(request.scope))
    scope = {
        **request.scope,
        "app": SimpleNamespace(routes=()),  # SGLang looks for a route first
        "path": routes[0].path if routes else f"/{OTHER}",
        "root_path": "",
        "method": request.method if request.method in _METHODS else OTHER,
    }
    scope.pop("app_root_path", None)
    return Request(scope, request.receive)


def _bounded(layer: Any) -> Middleware:
    dispatch: Dispatch = layer.kwargs["dispatch"]

    async def dispatch_shown(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        async def call_with_what_was_asked(_shown: Request) -> Any:
            return await call_next(request)

        return await dispatch(shown(request), call_with_what_was_asked)

    return Middleware(layer.cls, *layer.args, **{**layer.kwargs, "dispatch": dispatch_shown})


def _dispatch_of(layer: Any) -> Dispatch | None:
    dispatch = layer.kwargs.get("dispatch")
    return dispatch if getattr(dispatch, "__module__", None) == _COUNTS else None
