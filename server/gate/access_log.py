"""The outermost layer: gives every request an id, and says at its end what became of it, in one line and in metrics.

    {"time": "2025-01-31T12:00:00.123+00:00", "id": "5f...", "client": "10.0.0.7", "method": "POST",
     "route": "/v1/audio/speech", "status": 200, "outcome": "ok", "seconds": 2.1, "audio_seconds": 30.4,
     "ttfa_seconds": 0.134, "prompt_tokens": 780, "cached_tokens": 410, "finish_reason": "stop"}

`outcome` is ok, refused (4xx), failed, or left: by the client, before the end. Neither words nor sound are logged, nor
names of voices.
"""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sglang_moss.request.record import RequestRecord, open_record

from ..errors import CLIENT_CLOSED
from .metrics import SpeechMetrics, refusal_of
from .paths import route_of

LOGGER = "sglang_moss.access"
_SANE_ID = re.compile(r"[!-~]{1,128}")


def write_access_log() -> None:
    """Let the log's lines go to standard output as they are."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class AccessLog:
    """ASGI middleware, around everything else.

    Args:
        writes: whether lines are logged; ids are given in any case.
    """

    def __init__(self, app: ASGIApp, metrics: SpeechMetrics | None, writes: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._writes = writes
        self._logger = logging.getLogger(LOGGER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_id_of(scope))
        if self._metrics is not None:
            record.on_audio = self._metrics.count_audio
        open_record(record)
        exchange = _Exchange(record.id, receive, send, lambda ended: self._account(scope, ended, record))
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.end()

    def _account(self, scope: Scope, exchange: "_Exchange", record: RequestRecord) -> None:
        route = route_of(scope)
        if route is None:
            return
        outcome = exchange.outcome(record)
        if self._metrics is not None:
            self._metrics.count_request(route, outcome, exchange.status, record)
        if self._writes:
            line = _line(route, scope, outcome, exchange.status, record)
            self._logger.info("%s", json.dumps({key: value for key, value in line.items() if value is not None}))


class _Exchange:
    """A request and its answer; `on_end` is called once, when the last byte has left or the client has.

    The application may take longer: SGLang sleeps two seconds after each stream.
    """

    def __init__(self, request_id: str, receive: Receive, send: Send, on_end: Callable[["_Exchange"], None]) -> None:
        self.status = 0  # none was sent
        self._is_whole = False
        self._has_left = False
        self._has_ended = False
        self._id = request_id
        self._receive = receive
        self._send = send
        self._on_end = on_end

    def end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._on_end(self)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._has_ended:
            self._has_left = True
            self.end()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-Id"] = self._id
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_whole = True
            self.end()

    def outcome(self, record: RequestRecord) -> str:
        if self._has_left or self.status == CLIENT_CLOSED:
            return "left"
        if self.status >= 400:
            return "failed" if self.status >= 500 else "refused"
        if record.refusal:  # said in a stream
            return "refused"
        return "ok" if self._is_whole and record.finish_reason != "abort" else "failed"


def _id_of(scope: Scope) -> str:
    """The client's own id for its request, if that is one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _line(route: str, scope: Scope, outcome: str, status: int, record: RequestRecord) -> dict[str, Any]:
    client = scope.get("client")
    has_spoken = bool(record.audio_seconds)
    first = record.first_audio if record.is_streamed else None
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": record.id,
        "client": client[0] if client else None,
        "method": scope["method"],
        "route": route,
        "status": status or None,
        "outcome": outcome,
        "reason": refusal_of(status, record) if outcome in ("refused", "failed") else None,
        "seconds": round(time.monotonic() - record.started, 4),
        "audio_seconds": round(record.audio_seconds, 3) if has_spoken else None,
        "ttfa_seconds": None if first is None else round(first - record.started, 4),
        "prompt_tokens": record.prompt_tokens or None,
        "cached_tokens": record.cached_tokens if record.prompt_tokens else None,
        "finish_reason": record.finish_reason,
    }
