"""`/generate`: SGLang's own route by its path and its answers, and ours by what it takes.

SGLang would read the body into a dataclass of some sixty fields, most of which have no use here and some of which end
the server. `generate_body.parse` takes what is understood; the request then goes the way that SGLang's own would go.
"""

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sglang_moss.errors import BadRequest
from sglang_moss.generate_body import parse

from .errors import error_for
from .json_body import read_json
from .pings import with_pings

_PATH = "/generate"
_TEXT = {"type": "string", "description": "`[S1] ... [S2] ...`, with directives in front"}
_CLIP = {"type": "string", "description": "a WAV or other audio file in base64, a data URL, or a URL"}
_SETTINGS = {"type": "object", "description": "temperature, top_p, top_k, max_new_tokens (frames), sampling_seed, ..."}
_FIELDS: dict[str, Any] = {
    "text": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
    "audio_data": {"description": "References: a clip for [S1], and so on; of a batch, a list for each text."}
    | {"anyOf": [_CLIP, {"type": "array", "items": {"anyOf": [_CLIP, {"type": "array", "items": _CLIP}]}}]},
    "sampling_params": {"anyOf": [_SETTINGS, {"type": "array", "items": _SETTINGS}]},
    "stream": {"type": "boolean", "description": "Server-sent events, each with the audio that is new."},
    "rid": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "priority": {"type": "integer"},
    "extra_key": {"type": "string", "description": "Requests share cached prompts under one key alone."},
}
_SCHEMA = {"type": "object", "required": ["text"], "properties": _FIELDS, "additionalProperties": False}
_BODY = {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}
_JSON: dict[str, Any] = {"content": {"application/json": {}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "`text` is a WAV in base64, `meta_info` says what it holds; or events.", **_JSON},
    400: {"description": "It cannot be spoken as sent; the sentence says why.", **_JSON},
    429: {"description": "The server is full.", **_JSON},
    503: {"description": "The server is busy or shutting down.", **_JSON},
}


def serve_generate(app: FastAPI) -> None:
    """Put our route in the place of SGLang's."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != _PATH]
    app.include_router(generate_router())


def generate_router() -> APIRouter:
    """`POST` and `PUT /generate`."""
    router = APIRouter()

    @router.api_route(_PATH, methods=["POST", "PUT"], responses=_ANSWERS, openapi_extra={"requestBody": _BODY})
    async def generate(request: Request) -> Response:
        """Speak a script, a batch of them, or one several times; whole answers, or server-sent events with `stream`."""
        from sglang.srt.entrypoints.http_server import serve_generate_request

        try:
            body = parse(await read_json(await request.body()))
        except BadRequest as error:
            return JSONResponse(error_for(request.scope, error), error.status)
        answer = await serve_generate_request(body, request)
        if isinstance(answer, StreamingResponse):
            events: Any = answer.body_iterator
            answer.body_iterator = with_pings(events)
        return answer

    return router
