"""What every request passes before a route sees it: is the server open, has the client asked too often, is there a
place, and does its body come in bounds. Who is refused hears why, in the shape of the API that was asked.
"""

import logging
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sglang_moss.request.record import current_record

from ..errors import NotServed, Refused, error_for
from .admission import Admission, Ticket
from .body import BoundedBody
from .paced_send import PacedSend
from .paths import VOICES, is_limited, is_served, path_of, takes_place
from .rate_limit import RateLimit

logger = logging.getLogger(__name__)

_PIECE_SECONDS = 60.0  # in which a client must take a megabyte of its answer
_POLICY_VIOLATION = 1008  # of RFC 6455


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    body_bytes: int
    voice_bytes: int  # of a body that uploads a voice
    body_seconds: float


class Gate:
    """ASGI middleware, the innermost: who has no key never comes here."""

    def __init__(self, app: ASGIApp, admission: Admission, rate_limit: RateLimit | None, limits: Limits) -> None:
        self._app = app
        self._admission = admission
        self._rate_limit = rate_limit
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # SGLang has one for other models, which asks for no key
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http" or path_of(scope).startswith("/metrics"):
            await self._app(scope, receive, send)
            return
        outgoing = PacedSend(send, _PIECE_SECONDS)
        record = current_record()
        ticket = self._admission.ticket(record)
        record.claim = ticket.claim
        try:
            await self._pass(scope, receive, outgoing.send, ticket)
        except Refused as error:
            ticket.refuse(error)
            await _refuse(error, scope, receive, send)
        except Exception:
            if not outgoing.is_stalled:
                raise
            logger.warning("a client stopped reading its answer; %s is given up", record.id)
        finally:
            ticket.release()

    async def _pass(self, scope: Scope, receive: Receive, send: Send, ticket: Ticket) -> None:
        """
        Raises:
            Refused: and nothing has been sent.
        """
        self._admission.check_open()
        if not is_served(scope):
            raise NotServed("this model speaks, and does nothing else; see /generate and /v1/audio/speech")
        if self._rate_limit is not None and is_limited(scope):
            self._rate_limit.take((scope.get("client") or ("",))[0])
        needs_place = takes_place(scope)
        if needs_place:
            self._admission.check_place()
        # A place is taken by a whole body only, else slow senders would fill the server.
        limits = self._limits
        max_bytes = min(limits.body_bytes, limits.voice_bytes if path_of(scope) == VOICES else limits.body_bytes)
        body = BoundedBody(scope, receive, max_bytes, limits.body_seconds, ticket, needs_place)
        body.check_announced()
        answer = _Answer(send, body, ticket)
        try:
            await self._app(scope, body.receive, answer.send)
        except Exception:
            if body.refusal is None or answer.has_begun:
                raise
        if body.refusal is not None and not answer.has_begun:
            raise body.refusal


class _Answer:
    """What a route sends, but for its own idea of what is wrong with a body that was refused."""

    def __init__(self, send: Send, body: BoundedBody, ticket: Ticket) -> None:
        self.has_begun = False
        self._send = send
        self._body = body
        self._ticket = ticket

    async def send(self, message: Message) -> None:
        if self._body.refusal is not None and not self.has_begun:
            return
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            if self._ticket.refusal is not None and self._ticket.refusal.retry_after is not None:
                headers["Retry-After"] = str(self._ticket.refusal.retry_after)
            if self._body.is_unread and message["status"] >= 400:
                # Else the rest of a refused body would still be received, for as long as it is sent.
                headers["Connection"] = "close"
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ticket.release()


async def _refuse(error: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """In OpenAI's shape under its paths, else in SGLang's. The connection goes: a body may not have been read."""
    headers = {"Connection": "close"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    await JSONResponse(error_for(scope, error), error.status, headers)(scope, receive, send)
