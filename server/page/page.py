"""The page at `/`: the files in `static` and below, sent as they are, with nothing to build and nothing from elsewhere.

It stands in front of the API key: it holds no data, and asks the API for everything with the key that its user types.
"""

from os import PathLike
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ..gate.paths import path_of

_FOLDER = Path(__file__).parent / "static"
_PREFIX = "/page/"
_HEADERS = {
    "Cache-Control": "no-cache",  # asked for again each time, which costs a 304 as long as nothing changed
    "Content-Security-Policy": (
        "default-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _PageFiles(StaticFiles):
    def file_response(self, full_path: str | PathLike[str], *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(full_path, *args, **kwargs)
        response.headers.update(_HEADERS)
        return response


class Page:
    """ASGI middleware that answers `GET /` and `GET /page/...` itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._files = _PageFiles(directory=_FOLDER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = _file_of(scope)
        if file is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await self._files.get_response(file, scope)
        except HTTPException:
            response = PlainTextResponse("the page has no such file", 404)
        await response(scope, receive, send)


def _file_of(scope: Scope) -> str | None:
    """The file that a request is for; None: the request is not for the page."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return None
    path = path_of(scope)
    if path == "/":
        return "index.html"
    return path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else None
