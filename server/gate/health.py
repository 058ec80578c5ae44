"""`/health` and `/health_generate`, made true to the codecs: SGLang's own answer speaks for a scheduler alone."""

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sglang_moss.errors import MossError
from sglang_moss.request.codec_pool import CodecPool

from .paths import path_of

logger = logging.getLogger(__name__)


class CodecHealth:
    """ASGI middleware: health is asked of every codec's thread first, and then of SGLang.

    Args:
        addresses: where the codecs listen, by rank.
        timeout_seconds: how long they may take.
    """

    def __init__(self, app: ASGIApp, addresses: Sequence[str], timeout_seconds: float) -> None:
        self._app = app
        self._addresses = addresses
        self._timeout_seconds = timeout_seconds
        self._client: CodecPool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and path_of(scope) in ("/health", "/health_generate") and not await self._answers():
            await Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _answers(self) -> bool:
        """Whether the codecs' threads are at work."""
        if self._client is None:  # made here, since it belongs to the event loop
            self._client = CodecPool(self._addresses, n_vq=1)  # what the codes are does not matter
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._client.hook_runs()  # whatever the answer, it is one
        except (TimeoutError, MossError):
            logger.exception("health check failed: a codec does not answer")
            return False
        return True
