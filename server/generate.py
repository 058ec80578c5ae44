"""`/generate`: SGLang's own route by its path and its answers, and ours by what it takes.

SGLang would read the body into a dataclass of some sixty fields, most of which have no use here and some of which end
the server. `generate_body.parse` takes what is understood; the request then goes the way that SGLang's own would go.
"""

from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sglang_moss.errors import BadRequest
from sglang_moss.generate_body import parse
from sglang_moss.request.profile import Profile

from .errors import error_for
from .generate_schema import ANSWERS, body
from .json_body import read_json
from .pings import with_pings

_PATH = "/generate"


def serve_generate(app: FastAPI, profile: Profile) -> None:
    """Put our route in the place of SGLang's, described as the server's model takes it."""
    others = [route for route in app.router.routes if getattr(route, "path", None) != _PATH]
    app.router.routes.clear()
    app.include_router(generate_router(profile))  # in front: a path is compared with one route after the other
    app.router.routes.extend(others)


def generate_router(profile: Profile) -> APIRouter:
    """`POST` and `PUT /generate`."""
    router = APIRouter()
    extra = {"requestBody": body(profile)}

    @router.api_route(_PATH, methods=["POST", "PUT"], responses=ANSWERS, openapi_extra=extra)
    async def generate(request: Request) -> Response:
        """Speak a script, a batch of them, or one several times; whole answers, or server-sent events with `stream`."""
        from sglang.srt.entrypoints.http_server import serve_generate_request

        try:
            wanted = parse(await read_json(await _body(request)))
        except BadRequest as error:
            return JSONResponse(error_for(request.scope, error), error.status)
        answer = await serve_generate_request(wanted, request)
        if isinstance(answer, StreamingResponse):
            events: Any = answer.body_iterator
            answer.body_iterator = with_pings(events)
            # SGLang's look for a client that left, two seconds later: it fails for what was refused, and the request
            # would keep its place until then. `tokenizer_answers` aborts at once.
            answer.background = None
        return answer

    return router


async def _body(request: Request) -> bytes:
    """All of it. As `Request.body` has it, but that a body in one piece is not copied."""
    async with aclosing(request.stream()) as stream:
        return b"".join([piece async for piece in stream if piece])
