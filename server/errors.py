"""What these endpoints refuse, and the shape in which every error of theirs leaves: OpenAI's.

{"error": {"message": "...", "type": "invalid_request_error", "param": "voice", "code": "unknown_voice"}}
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from sglang_moss.errors import BadReference, BadRequest, BadText, MossError, PromptTooLong

logger = logging.getLogger(__name__)

_BODY_MARGIN = 4_000_000  # bytes of a body besides its audio files
_SHOWN_FIELDS = 8


class BadField(BadRequest):
    """A field that cannot be honoured; `param` names it, `code` is for programs."""

    def __init__(self, message: str, param: str | None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NoSuchVoice(BadField):
    """No voice has this name."""

    status: ClassVar[int] = 404


class VoiceConflict(BadField):
    """The name is taken, or no more voices fit."""

    status: ClassVar[int] = 409


class SpeechFailed(MossError):  # noqa: N818 (named for what happened)
    """A session ended without its speech; `http_status` is what SGLang said."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.http_status = status


def error_body(error: Exception) -> dict[str, Any]:
    """The JSON that says `error`; failures that are not meant for clients become one plain sentence."""
    status, message, param, code = _parts_of(error)
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_status(error: Exception) -> int:
    return _parts_of(error)[0]


def _parts_of(error: Exception) -> tuple[int, str, str | None, str | None]:
    """Status, message, param and code."""
    match error:
        case BadField():
            return error.status, str(error), error.param, error.code
        case SpeechFailed():
            return error.http_status, str(error), None, None
        case MossError():
            return error.status, str(error), _field_of(error), None
        case RequestValidationError():
            return (HTTPStatus.BAD_REQUEST, *_validation_message(error.errors()), None)
        case HTTPException():
            return error.status_code, str(error.detail), None, None
    return HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why", None, None


def _field_of(error: MossError) -> str | None:
    if isinstance(error, BadText | PromptTooLong):
        return "input"
    return "references" if isinstance(error, BadReference) else None


def _validation_message(problems: Sequence[Any]) -> tuple[str, str | None]:
    """One sentence for what pydantic found, and the field it is about. Never repeats a value."""
    unknown = [_path(problem) for problem in problems if problem["type"] == "extra_forbidden"]
    if unknown:
        return f"unknown fields: {', '.join(unknown[:_SHOWN_FIELDS])}; take them out", unknown[0]
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return "the body is no valid JSON", None
    path = _path(problem)
    return f"{path or 'the body'}: {problem['msg']}", path or None


def _path(problem: Any) -> str:
    return ".".join(str(step)[:64] for step in problem["loc"] if step != "body")


def route_class(max_audio_bytes: int) -> type[APIRoute]:
    """A route whose errors are OpenAI's and whose body is bounded.

    Args:
        max_audio_bytes: of all files in a body together, as they are encoded there.
    """
    max_bytes = max_audio_bytes + _BODY_MARGIN

    class SpeechRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                body = _BoundedBody(request, max_bytes)
                try:
                    body.check_announced()
                    return await handler(Request(request.scope, body.receive))
                except Exception as error:
                    status = error_status(error)
                    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
                    # Else the rest of a refused body would still be received, for as long as it is sent.
                    headers = None if body.is_whole else {"Connection": "close"}
                    return JSONResponse(error_body(error), status, headers)

            return handle

    return SpeechRoute


class _BoundedBody:
    """The body of a request, which stops being read beyond `max_bytes`, whatever was announced."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        self.is_whole = False
        self._request = request
        self._max_bytes = max_bytes
        self._n_bytes = 0

    def check_announced(self) -> None:
        """Refuse by the header alone.

        Raises:
            HTTPException: 413.
        """
        announced = self._request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()

    async def receive(self) -> Any:
        """The next ASGI message.

        Raises:
            HTTPException: 413.
        """
        message = await self._request.receive()
        self.is_whole = not message.get("more_body", False)
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._max_bytes:
            raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {self._max_bytes} bytes here")
