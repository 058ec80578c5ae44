"""HTTP for many requests at once: a connection for each that runs, kept for the next one.

httpx's own pool looks at every connection whenever a request begins or ends. A hundred streams at once cost more time
there than in sending and reading them, and what measures a server would measure that.
"""

import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import getproxies

import httpx

from .connection import KEPT_S


def many_at_once(*, base_url: httpx.URL, trust_env: bool, **more: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for any number of requests at once; httpx's own pool where the environment has a proxy."""
    if trust_env and getproxies():
        return httpx.AsyncClient(base_url=base_url, trust_env=trust_env, **more)
    context = httpx.create_ssl_context(trust_env=trust_env) if base_url.scheme == "https" else False
    return httpx.AsyncClient(base_url=base_url, trust_env=trust_env, transport=OneEach(context), **more)


class OneEach(httpx.AsyncBaseTransport):
    """A connection for each request that runs.

    Args:
        verify: of TLS, for all connections; False where there is none.
    """

    def __init__(self, verify: ssl.SSLContext | bool) -> None:
        self._verify = verify
        self._idle: list[httpx.AsyncHTTPTransport] = []  # the one that was used last is taken first

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._idle.pop() if self._idle else self._connection()
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            self._idle.append(transport)  # it connects anew where its connection broke
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _GivingBack(response.stream, transport, self._idle)
        return response

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()

    def _connection(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, keepalive_expiry=KEPT_S)
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=limits)


class _GivingBack(httpx.AsyncByteStream):
    """An answer's body, at whose end its connection is idle again."""

    def __init__(
        self, stream: httpx.AsyncByteStream, transport: httpx.AsyncHTTPTransport, idle: list[httpx.AsyncHTTPTransport]
    ) -> None:
        self._stream = stream
        self._transport: httpx.AsyncHTTPTransport | None = transport
        self._idle = idle

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        try:
            await self._stream.aclose()
        finally:
            if transport is not None:
                self._idle.append(transport)
