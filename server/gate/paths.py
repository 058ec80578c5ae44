"""Which requests this package answers for: they are counted, logged, and limited."""

import os

from starlette.types import Scope

SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"
_SPEAKING = ("/generate", SPEECH, os.environ.get("AIP_PREDICT_ROUTE", "/vertex_generate"))  # the last as SGLang has it


# They would fail, or speak past what counts and limits requests.
_NOT_SERVED = (
    "/classify",
    "/encode",
    "/detokenize",
    "/v1/detokenize",
    os.environ.get("SGLANG_OLLAMA_GENERATE_ROUTE", "/api/generate"),
    os.environ.get("SGLANG_OLLAMA_CHAT_ROUTE", "/api/chat"),
)


def path_of(scope: Scope) -> str:
    """The path of an HTTP request, without what a proxy in front of the server adds."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def route_of(scope: Scope) -> str | None:
    """The route by its name, which never holds what a client chose; None: not one of ours."""
    path = path_of(scope)
    if path in _SPEAKING or path == VOICES:
        return path
    return f"{VOICES}/{{name}}" if path.startswith(f"{VOICES}/") else None


def is_served(scope: Scope) -> bool:
    """Whether the model can do what the route is for."""
    return path_of(scope) not in _NOT_SERVED


def takes_place(scope: Scope) -> bool:
    """Whether the request is work: it makes the server speak, or decode and encode a voice."""
    return _writes(scope) and path_of(scope) in (*_SPEAKING, VOICES)


def is_limited(scope: Scope) -> bool:
    """Whether the request counts for the rate limit: it makes the server speak, or decode and store a voice."""
    return _writes(scope) and route_of(scope) is not None


def _writes(scope: Scope) -> bool:
    return scope["method"] not in ("GET", "HEAD", "OPTIONS")
