"""`/health` and `/health_generate`, made true to the codec: SGLang's own answer speaks for its scheduler alone."""

import asyncio
import logging
from http import HTTPStatus

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sglang_moss.errors import MossError
from sglang_moss.request.codec_client import CodecClient

from .paths import path_of

logger = logging.getLogger(__name__)


class CodecHealth:
    """ASGI middleware: health is asked of the codec's thread first, and then of SGLang.

    Args:
        address: where the codec listens.
        timeout_seconds: how long the codec may take.
    """

    def __init__(self, app: ASGIApp, address: str, timeout_seconds: float) -> None:
        self._app = app
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._client: CodecClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and path_of(scope) in ("/health", "/health_generate") and not await self._answers():
            await Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _answers(self) -> bool:
        """Whether the codec's thread is at work."""
        if self._client is None:  # made here, since it belongs to the event loop
            self._client = CodecClient(self._address, n_vq=1)  # what the codes are does not matter
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._client.hook_runs()  # whatever the answer, it is one
        except (TimeoutError, MossError):
            logger.exception("health check failed: the codec does not answer")
            return False
        return True
