"""A fault after an answer's last byte costs the connection nothing, on which the next request may have come already."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AnsweredFaults:
    """ASGI middleware, around everything else: a fault that has been answered is logged, and goes no further.

    Starlette answers a fault with 500, and raises it all the same; what runs after an answer may fail as well. uvicorn
    then closes the connection, whose head has said that it stays open. What a proxy or another thread of the client
    has sent in it meanwhile would be lost.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_whole = False

        async def send_on(message: Message) -> None:
            nonlocal is_whole
            await send(message)
            is_whole |= message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            if not is_whole:
                raise  # what has come so far must not look whole
            logger.exception("%s %s failed", scope["method"], scope["path"])
