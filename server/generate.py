"""`/generate`: SGLang's own route by its path and its answers, and ours by what it takes and by how it refuses.

SGLang would read the body into a dataclass of some sixty fields, most of which have no use here and some of which end
the server. `generate_body.parse` takes what is understood; the request then goes the way that SGLang's own would go.
Of what is refused on that way SGLang keeps the sentence alone; the record has the rest.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from sglang_moss.errors import BadRequest, MossError
from sglang_moss.generate_body import parse
from sglang_moss.request.profile import Profile
from sglang_moss.request.record import RequestRecord, current_record

from .errors import error_for, error_status
from .gate.paths import GENERATE
from .generate_schema import ANSWERS, body
from .json_body import is_quick, read_json
from .pings import with_pings

_EVENT, _END = b"data: ", b"\n\n"
_FAILED_EVENT = _EVENT + b'{"error":'


def serve_generate(app: FastAPI, profile: Profile) -> None:
    """Put our route on SGLang's application, described as the server's model takes it."""
    others = list(app.router.routes)
    app.router.routes.clear()
    app.include_router(generate_router(profile))  # in front: a path is compared with one route after the other
    app.router.routes.extend(others)


def generate_router(profile: Profile) -> APIRouter:
    """`POST` and `PUT /generate`."""
    router = APIRouter()
    extra = {"requestBody": body(profile)}

    @router.api_route(GENERATE, methods=["POST", "PUT"], responses=ANSWERS, openapi_extra=extra)
    async def generate(request: Request) -> Response:
        """Speak a script, a batch of them, or one several times; whole answers, or server-sent events with `stream`."""
        from sglang.srt.entrypoints.http_server import serve_generate_request

        record = current_record()
        try:
            content = await _body(request)
            if is_quick(content):
                await record.preparation.begin()
            wanted = parse(await read_json(content, record.preparation.end))
            answer = await serve_generate_request(wanted, request)
        except (BadRequest, HTTPException, ClientDisconnect) as error:
            return _refusal(request.scope, error)
        if isinstance(answer, StreamingResponse):
            events: Any = answer.body_iterator
            answer.body_iterator = with_pings(_in_one_shape(events, request.scope, record))
            # SGLang's look for a client that left, two seconds later: it fails for what was refused, and the request
            # would keep its place until then. `tokenizer_answers` aborts at once.
            answer.background = None
        elif answer.status_code >= 400:
            problem = _problem(record, orjson.loads(answer.body)["error"], answer.status_code)
            return JSONResponse(error_for(request.scope, problem), answer.status_code)
        return answer

    return router


def _refusal(scope: Scope, error: BadRequest | HTTPException | ClientDisconnect) -> JSONResponse:
    """An answer to what was refused. The route's own frame is in the error's traceback, and so keeps no name for it."""
    problem = error.__cause__ if isinstance(error.__cause__, MossError) else error
    return JSONResponse(error_for(scope, problem), error_status(error))


async def _in_one_shape(
    events: AsyncGenerator[bytes, None], scope: Scope, record: RequestRecord
) -> AsyncGenerator[bytes, None]:
    """The same events, but for one that says why there are none, which has what a refusal has, and its status."""
    async with aclosing(events):
        async for event in events:
            if not event.startswith(_FAILED_EVENT):
                yield event
                continue
            said = orjson.loads(event.removeprefix(_EVENT))["error"]
            problem = _problem(record, said, said.get("code"))
            error = error_for(scope, problem)["error"]
            yield _EVENT + orjson.dumps({"error": {**error, "status_code": error_status(problem)}}) + _END


def _problem(record: RequestRecord, said: dict[str, Any], status: object) -> Exception:
    """What SGLang has made a sentence of; of its own, the sentence and its status."""
    if record.problem is not None:
        return record.problem
    return HTTPException(status if isinstance(status, int) and status >= 400 else 400, said["message"])


async def _body(request: Request) -> bytes:
    """All of it. As `Request.body` has it, but that a body in one piece is not copied."""
    async with aclosing(request.stream()) as stream:
        return b"".join([piece async for piece in stream if piece])
