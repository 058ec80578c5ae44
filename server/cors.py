"""Browsers read every answer, refusals too: SGLang's CORS headers around its check of the key, whose words are ours.

SGLang puts its check around its CORS headers, so that a page of another origin, told "401", sees a network error; and
its body is `{"error": "Unauthorized"}`, which OpenAI's clients have no words for.
"""

from http import HTTPStatus

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import WrongKey, error_for

_EXPOSED = ("X-Request-Id", "X-Sample-Rate", "X-Finish-Reason", "X-Seed", "Retry-After")
_BY_KEY_CHECK = (b'{"error":"Unauthorized"}', b'{"error":"Forbidden"}')


def put_outermost(app: FastAPI) -> None:
    """Order the application's middleware; to be called when all of it has been added."""
    cors = [layer for layer in app.user_middleware if layer.cls is CORSMiddleware]
    others = [layer for layer in app.user_middleware if layer.cls is not CORSMiddleware]
    exposing = [Middleware(CORSMiddleware, **{**layer.kwargs, "expose_headers": _EXPOSED}) for layer in cors]
    app.user_middleware = [*exposing, Middleware(RefusedKeys), *others]


class RefusedKeys:
    """ASGI middleware around SGLang's check of the key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: list[Message] = []  # the head of what may be a refusal

        async def look(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
            ):
                held.append(message)
            elif held and message["type"] == "http.response.body":
                head = held.pop()
                if message.get("body") in _BY_KEY_CHECK:
                    await _refuse(scope, receive, send)
                else:
                    await send(head)
                    await send(message)
            else:
                await send(message)

        await self._app(scope, receive, look)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    came = "another one came" if "authorization" in Headers(scope=scope) else "none came"
    error = WrongKey(f"this server asks for a key, and {came}: send it as `Authorization: Bearer KEY`")
    headers = {"WWW-Authenticate": "Bearer"}
    await JSONResponse(error_for(scope, error), error.status, headers)(scope, receive, send)
