"""What every request passes before a route sees it: is the route served, and to this client; is the server open, has
the client asked too often, is there a place, and does its body come in bounds. Who is refused hears why, in the shape
of the API that was asked.
"""

import logging
import math
import secrets
from dataclasses import dataclass
from http import HTTPStatus

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sglang_moss.request.preparation import PreparationOrder
from sglang_moss.request.record import current_record

from ..errors import MethodNotServed, NotServed, Refused, ShuttingDown, WrongKey, error_for
from .admission import Admission, Ticket
from .body import BoundedBody
from .paced_send import PacedSend
from .paths import Caller, Route, Work, path_of, routes_at, served_route
from .rate_limit import RateLimit

logger = logging.getLogger(__name__)

_PIECE_SECONDS = 60.0  # in which a client must take a megabyte of its answer
_POLICY_VIOLATION = 1008  # of RFC 6455


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    body_bytes: int  # of a body that may hold references
    voice_bytes: int  # of a body that uploads a voice
    body_seconds: float
    small_bytes: int = 1_000_000  # of any other body


class Gate:
    """ASGI middleware, the innermost: who has no key never comes here."""

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        rate_limit: RateLimit | None,
        limits: Limits,
        admin_key: str | None = None,
    ) -> None:
        self._app = app
        self._admin_key = admin_key
        self._admission = admission
        self._rate_limit = rate_limit
        self._limits = limits
        self._order = PreparationOrder()

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
        record.preparation = self._order.preparation()
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
            record.preparation.end()
            ticket.release()

    async def _pass(self, scope: Scope, receive: Receive, send: Send, ticket: Ticket) -> None:
        """
        Raises:
            Refused: and nothing has been sent.
        """
        self._admission.check_open()
        route = self._route_of(scope)
        if self._rate_limit is not None and route.work is not Work.NONE:
            self._rate_limit.take((scope.get("client") or ("",))[0])
        needs_place = route.work in (Work.SPEECH, Work.VOICE)
        if needs_place:
            self._admission.check_place()
        # A place is taken by a whole body only, else slow senders would fill the server.
        limits = self._limits
        max_bytes = {
            Work.SPEECH: limits.body_bytes,
            Work.VOICE: min(limits.body_bytes, limits.voice_bytes),
            Work.ENCODING: limits.body_bytes,
            Work.FILE: min(limits.body_bytes, limits.voice_bytes),
        }.get(route.work, limits.small_bytes)
        body = BoundedBody(scope, receive, max_bytes, limits.body_seconds, ticket, needs_place)
        body.check_announced()
        answer = _Answer(send, body, ticket, self._admission)
        try:
            await self._app(scope, body.receive, answer.send)
        except Exception:
            if body.refusal is None or answer.has_begun:
                raise
        if body.refusal is not None and not answer.has_begun:
            raise body.refusal

    def _route_of(self, scope: Scope) -> Route:
        """
        Raises:
            Refused: it is not served, or not to this client.
        """
        route = served_route(scope)
        if route is None:
            found = routes_at(path_of(scope))
            if not found or (found[0].caller is Caller.ADMINISTRATOR and self._admin_key is None):
                raise NotServed("this server speaks, and does nothing else; see /generate and /v1/audio/speech")
            if scope["method"] == "OPTIONS":
                return Route(found[0].path, ("OPTIONS",))
            methods = sorted({method for one in found for method in one.methods})
            raise MethodNotServed(f"{scope['method']} is not served here, but {', '.join(methods)}")
        if route.caller is Caller.ADMINISTRATOR:
            if self._admin_key is None:
                raise NotServed("this is for administrators, of whom a server without --admin-api-key has none")
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not secrets.compare_digest(key.encode(), self._admin_key.encode()):
                raise WrongKey("this is for administrators: send the key of --admin-api-key")
        return route


class _Answer:
    """What a route sends, but for its own idea of what is wrong with a body that was refused."""

    def __init__(self, send: Send, body: BoundedBody, ticket: Ticket, admission: Admission) -> None:
        self.has_begun = False
        self._send = send
        self._body = body
        self._ticket = ticket
        self._admission = admission

    async def send(self, message: Message) -> None:
        if self._body.refusal is not None and not self.has_begun:
            return
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            refusal, busy = self._ticket.refusal, current_record().retry_after
            if refusal is not None and refusal.retry_after is not None:
                headers["Retry-After"] = str(refusal.retry_after)
            elif busy is not None and message["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
                headers["Retry-After"] = str(math.ceil(busy))
            if self._admission.is_closed:
                headers["Connection"] = "close"  # else a proxy sends what comes next into a server that ends
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ticket.release()


async def _refuse(error: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """In OpenAI's shape under its paths, else in SGLang's."""
    headers = {"Connection": "close"} if isinstance(error, ShuttingDown) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    await JSONResponse(error_for(scope, error), error.status, headers)(scope, receive, send)
