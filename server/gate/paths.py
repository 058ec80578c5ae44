"""Every route that is served, and to whom: a list, since SGLang's application has some eighty more.

Many of those end the scheduler, change its weights, stop everybody's work, or tokenize whatever is sent on the event
loop. What is not on the list gets a 404, in every release of SGLang.
"""

from dataclasses import dataclass
from enum import Enum

from starlette.types import Scope

GENERATE = "/generate"
SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"
PROFILE = "/v1/audio/profile"
ENCODE = "/page/encode"
TURNS = "/page/turns"
DESIGN = "/page/design"
SCRIPT = "/page/script"
TRANSCRIPT = "/page/transcript"
START_PROFILE = "/start_profile"
_NAMED = f"{VOICES}/{{name}}"
_ONE_SEGMENT, _ANY_REST = "{name}", "{path}"
_READS = ("GET", "HEAD")


class Caller(Enum):
    """Who may call a route."""

    ANYBODY = "anybody"  # probes and collectors, which have no key, by SGLang's own rule; readers of `api_pages`
    CLIENT = "client"  # whoever has the key, if the server has one
    ADMINISTRATOR = "administrator"  # only with the administrator's key; without one there are none


class Work(Enum):
    """What a request to a route costs."""

    NONE = "none"
    SPEECH = "speech"  # a place among those that run or wait; the rate limit; a body with references
    VOICE = "voice"  # likewise, and a body with one clip
    ENCODING = "encoding"  # the rate limit, and a body with the samples of a speech; the model has no part in it
    FILE = "file"  # the rate limit, and a body with one file; likewise
    LIMITED = "limited"  # the rate limit alone


@dataclass(frozen=True)
class Route:
    """One route that is served."""

    path: str  # "{name}" stands for one segment that a client chose, "{path}" at its end for one or more
    methods: tuple[str, ...]
    caller: Caller = Caller.CLIENT
    work: Work = Work.NONE


ROUTES = (
    Route(GENERATE, ("POST", "PUT"), work=Work.SPEECH),
    Route(SPEECH, ("POST",), work=Work.SPEECH),
    Route(PROFILE, _READS),
    Route(VOICES, _READS),
    Route(VOICES, ("POST",), work=Work.VOICE),
    Route(_NAMED, _READS),
    Route(_NAMED, ("PUT",), work=Work.VOICE),
    Route(_NAMED, ("DELETE",), work=Work.LIMITED),
    Route(f"{_NAMED}/clip", _READS),
    Route(ENCODE, ("POST",), work=Work.ENCODING),
    Route(TURNS, ("POST",), work=Work.ENCODING),
    Route(DESIGN, ("POST",), work=Work.LIMITED),
    Route(SCRIPT, ("POST",), work=Work.FILE),
    Route(TRANSCRIPT, ("POST",), work=Work.FILE),
    Route("/v1/models", _READS),
    Route("/v1/models/{path}", _READS),
    Route("/model_info", _READS),
    Route("/get_model_info", _READS),
    Route("/server_info", _READS),
    Route("/get_server_info", _READS),
    Route("/v1/loads", _READS),
    Route("/docs", _READS, Caller.ANYBODY),
    Route("/docs/{path}", _READS, Caller.ANYBODY),
    Route("/redoc", _READS, Caller.ANYBODY),
    Route("/openapi.json", _READS, Caller.ANYBODY),
    Route("/ping", _READS, Caller.ANYBODY),
    Route("/health", _READS, Caller.ANYBODY),
    Route("/health_generate", _READS, Caller.ANYBODY),
    Route("/ready", _READS, Caller.ANYBODY),
    Route("/metrics", _READS, Caller.ANYBODY),
    Route("/metrics/", _READS, Caller.ANYBODY),
    Route("/abort_request", ("POST",), Caller.ADMINISTRATOR),
    Route("/flush_cache", ("GET", "POST"), Caller.ADMINISTRATOR),
    Route("/freeze_gc", ("GET", "POST"), Caller.ADMINISTRATOR),
    Route(START_PROFILE, ("GET", "POST"), Caller.ADMINISTRATOR),
    Route("/stop_profile", ("GET", "POST"), Caller.ADMINISTRATOR),
)
# By path, and those with a part that a client chose, cut up: every request is looked for several times.
_PATTERNS = [(route, route.path.split("/")) for route in ROUTES if "{" in route.path]
_FIXED = {path: [route for route in ROUTES if route.path == path] for path in {route.path for route in ROUTES}}
_OURS = (Work.SPEECH, Work.VOICE, Work.ENCODING, Work.FILE, Work.LIMITED)


def path_of(scope: Scope) -> str:
    """The path of an HTTP request, without what a proxy in front of the server adds."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def routes_at(path: str) -> list[Route]:
    """The routes that are served at a path; none: nothing is."""
    found = _FIXED.get(path, [])
    given = path.split("/")
    return found or [route for route, segments in _PATTERNS if _matches(segments, given)]


def served_route(scope: Scope) -> Route | None:
    """The route of a request, by path and method; None: it is not served."""
    return next((route for route in routes_at(path_of(scope)) if scope["method"] in route.methods), None)


def route_of(scope: Scope) -> str | None:
    """The name of a route of ours, which never holds what a client chose; None: another one, or none."""
    routes = routes_at(path_of(scope))
    is_ours = bool(routes) and (routes[0].work in _OURS or routes[0].path.startswith(VOICES))
    return routes[0].path if is_ours else None


def _matches(segments: list[str], given: list[str]) -> bool:
    if segments[-1] == _ANY_REST:
        return given[: len(segments) - 1] == segments[:-1] and any(given[len(segments) - 1 :])
    return len(segments) == len(given) and all(
        bool(actual) if expected == _ONE_SEGMENT else expected == actual
        for expected, actual in zip(segments, given, strict=True)
    )
