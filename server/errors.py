"""What these endpoints refuse, and the shape in which every error of theirs leaves: OpenAI's.

{"error": {"message": "...", "type": "invalid_request_error", "param": "voice", "code": "unknown_voice"}}
"""

import logging
import math
import re
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from sglang_moss.errors import BadReference, BadRequest, BadText, Code, MossError, PromptTooLong

from .gate.paths import GENERATE, path_of
from .json_body import read_json

logger = logging.getLogger(__name__)

_SHOWN_FIELDS = 8
CLIENT_CLOSED = 499  # as nginx calls it: the client has gone, and reads no answer
_MEANT = {  # what other servers, and `/generate`, call by another name
    "max_new_tokens": "max_seconds",
    "max_tokens": "max_seconds",
    "text": "input",
    "prompt": "input",
    "sampling_seed": "seed",
    "format": "response_format",
    "audio_data": "references",
}
_OF_GENERATE = {"input": "text", "references": "audio_data"}  # what the speech API calls otherwise
_TYPE = re.compile(
    r"str|int|float|bool|bytes|none|dict|list|constrained-\w+|(?:list|dict|union|function|is-instance)\S*\[.*"
)


class BadField(BadRequest):
    """A field that cannot be honoured; `param` names it."""

    code = "bad_setting"

    def __init__(self, message: str, param: str | None, code: Code | None = None) -> None:
        super().__init__(message, code)
        self.param = param


class NoSuchVoice(BadField):
    """No voice has this name."""

    status: ClassVar[int] = 404


class VoiceConflict(BadField):
    """The name is taken, or no more voices fit."""

    status: ClassVar[int] = 409


class SpeechFailed(MossError):  # noqa: N818 (named for what happened)
    """A session ended without its speech; `http_status` is what SGLang said, `code` what ended it, if that is known."""

    def __init__(self, message: str, status: int, code: Code | None = None) -> None:
        super().__init__(message)
        self.http_status = status
        self.code = code or _code_of(status)


class Refused(MossError):  # noqa: N818 (named for what happened)
    """A request that the server does not take, whatever is in it.

    Attributes:
        retry_after: seconds after which it may be taken; None: never as it is.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))


class NotServed(Refused):
    """A route of SGLang's that has no meaning for this model."""

    status: ClassVar[int] = 404
    code = "not_found"


class MethodNotServed(Refused):
    """A route that is served, but not so."""

    status: ClassVar[int] = 405
    code = "method_not_allowed"


class WrongKey(Refused):
    """The key is not the one that is needed."""

    status: ClassVar[int] = 401
    code = "wrong_key"


class BodyTooLarge(Refused):
    """More bytes than any request of its kind needs."""

    status: ClassVar[int] = 413
    code = "body_too_large"


class BodyTooSlow(Refused):
    """The body did not come in time."""

    status: ClassVar[int] = 408
    code = "body_timeout"


class QueueFull(Refused):
    """As many requests wait as may wait."""

    status: ClassVar[int] = 429
    code = "queue_full"


class RateLimited(Refused):
    """A client asks more often than it may."""

    status: ClassVar[int] = 429
    code = "rate_limit_exceeded"


class ShuttingDown(Refused):
    """The server finishes what runs, as far as there is time, and takes nothing new."""

    status: ClassVar[int] = 503
    code = "shutting_down"
    SENTENCE: ClassVar[str] = "the server is shutting down"

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__(self.SENTENCE, retry_after)


class HelperFailed(Refused):
    """Another server or program, which was asked for this one's client, has not done its work."""

    status: ClassVar[int] = 502
    code = "helper_failed"


def error_body(error: Exception) -> dict[str, Any]:
    """The JSON that says `error`; failures that are not meant for clients become one plain sentence."""
    status, message, param, code = _parts_of(error)
    return {"error": {"message": message, "type": _kind_of(status), "param": param, "code": code}}


def error_for(scope: Scope, error: Exception) -> dict[str, Any]:
    """`error_body`, with the names that fields have where the request went."""
    body = error_body(error)
    if path_of(scope) == GENERATE:
        param = body["error"]["param"]
        body["error"]["param"] = _OF_GENERATE.get(param, param)
    return body


def _kind_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:  # nothing is wrong with the request
        return "rate_limit_error"
    return "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"


def _code_of(status: int) -> Code:
    """Of an error that has none of its own."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "server_busy"
    if status == HTTPStatus.NOT_FOUND:
        return "not_found"
    return "server_failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "bad_request"


def error_status(error: Exception) -> int:
    return _parts_of(error)[0]


def _parts_of(error: Exception) -> tuple[int, str, str | None, Code]:
    """Status, message, param and code."""
    match error:
        case BadField():
            return error.status, str(error), error.param, error.code
        case SpeechFailed():
            return error.http_status, str(error), None, error.code
        case MossError():
            return error.status, str(error), _field_of(error), error.code
        case RequestValidationError():
            return (HTTPStatus.BAD_REQUEST, *_validation_message(error.errors()), "bad_setting")
        case ClientDisconnect():  # nothing has failed
            return CLIENT_CLOSED, "the client has gone", None, "bad_request"
        case HTTPException(detail=ShuttingDown.SENTENCE):  # all that SGLang passes on of such an end
            return error.status_code, ShuttingDown.SENTENCE, None, ShuttingDown.code
        case HTTPException():
            return error.status_code, str(error.detail), None, _code_of(error.status_code)
    return HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why", None, "server_failed"


def _field_of(error: MossError) -> str | None:
    if isinstance(error, BadText | PromptTooLong):
        return "input"
    return "references" if isinstance(error, BadReference) else None


def _validation_message(problems: Sequence[Any]) -> tuple[str, str | None]:
    """One sentence for what pydantic found, and the field it is about. Never repeats a value."""
    unknown = [_path(problem) for problem in problems if problem["type"] == "extra_forbidden"]
    if unknown:
        meant = [f"for {name} send {_MEANT[name]}" for name in unknown if name in _MEANT]
        names = ", ".join(unknown[:_SHOWN_FIELDS])
        return f"unknown fields: {names}; {', '.join(meant) or 'take them out'}", unknown[0]
    # Of a field that may be one thing or another, the first says least.
    problem = next((one for one in problems if one["type"] != "is_instance_of"), problems[0])
    if problem["type"] == "json_invalid":
        return "the body is no valid JSON", None
    path = _path(problem)
    if path:
        return f"{path}: {_expectation(problem)}", path
    if isinstance(problem.get("input"), bytes):
        return "the body: expected JSON, got something else; send it with Content-Type: application/json", None
    return "the body: expected a JSON object, sent with Content-Type: application/json", None


def _expectation(problem: Any) -> str:
    """What pydantic says of one value, in words that a caller knows."""
    if problem["type"] == "missing":
        return "missing; send it"
    message = problem["msg"].removeprefix("Value error, ")
    expected = message.removeprefix("Input should be ")
    if expected == message:
        return message
    expected = expected.removeprefix("a valid ").replace("dictionary or object to extract fields from", "object")
    expected = expected.replace("valid dictionary", "object").replace("dictionary", "object")
    article = "" if expected.startswith(("a ", "an ", "one ", "at ", "less", "greater", "'")) else "a "
    return f"expected {'an ' if article and expected[0] in 'aeiou' else article}{expected}"


def _path(problem: Any) -> str:
    """The field, by its name in the body; what pydantic adds are the types that it has tried."""
    return ".".join(str(step)[:64] for step in problem["loc"] if step != "body" and not _TYPE.fullmatch(str(step)))


class _JSONRequest(Request):
    """A request whose JSON is read as `/generate` reads it."""

    async def json(self) -> Any:
        try:
            return await read_json(await self.body())
        except BadRequest as error:  # of anything else FastAPI makes a sentence of its own
            raise HTTPException(error.status, str(error)) from None


class SpeechRoute(APIRoute):
    """A route whose errors are OpenAI's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(_JSONRequest(request.scope, request.receive))
            except Exception as error:
                status, body = error_status(error), error_body(error)
                if status >= HTTPStatus.INTERNAL_SERVER_ERROR and body["error"]["code"] != "server_busy":
                    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
                wait = error.retry_after if isinstance(error, Refused) else None
                return JSONResponse(body, status, None if wait is None else {"Retry-After": str(wait)})

        return handle
