"""HTTP for many requests at once: a connection for each that runs, kept for the next one.

httpx's own pool looks at every connection whenever a request begins or ends. A hundred streams at once cost more time
there than in sending and reading them, and what measures a server would measure that.
"""

import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.request import getproxies

import httpx


def many_at_once(*, base_url: httpx.URL, trust_env: bool, limits: httpx.Limits, **more: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for any number of requests at once; httpx's own pool where the environment has a proxy."""
    if trust_env and getproxies():
        return httpx.AsyncClient(base_url=base_url, trust_env=trust_env, limits=limits, **more)
    context = httpx.create_ssl_context(trust_env=trust_env) if base_url.scheme == "https" else False
    transport = OneEach(context, limits.keepalive_expiry or 0.0)
    return httpx.AsyncClient(base_url=base_url, trust_env=trust_env, transport=transport, **more)


class OneEach(httpx.AsyncBaseTransport):
    """A connection for each request that runs.

    Args:
        verify: of TLS, for all connections; False where there is none.
        kept_s: how long one is kept that no request needs.
    """

    def __init__(self, verify: ssl.SSLContext | bool, kept_s: float) -> None:
        self._verify = verify
        self._kept_s = kept_s
        # With the time from which on it has been idle. The one that was used last is taken first, the others grow old.
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._expire()
        transport = self._idle.pop()[1] if self._idle else self._connection()
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            await transport.aclose()  # whatever state it is in
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _GivingBack(response.stream, lambda: self._give_back(transport), transport.aclose)
        return response

    async def aclose(self) -> None:
        self._is_closed = True
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def _give_back(self, transport: httpx.AsyncHTTPTransport) -> None:
        if self._is_closed:
            await transport.aclose()
            return
        self._idle.append((time.monotonic(), transport))
        await self._expire()

    async def _expire(self) -> None:
        while self._idle and self._idle[0][0] < time.monotonic() - self._kept_s:
            await self._idle.popleft()[1].aclose()

    def _connection(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, keepalive_expiry=self._kept_s)
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=limits)


class _GivingBack(httpx.AsyncByteStream):
    """An answer's body, at whose end its connection is idle again."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        give_back: Callable[[], Awaitable[None]],
        give_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._give_back: Callable[[], Awaitable[None]] | None = give_back
        self._give_up = give_up

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is None:
            return
        try:
            await self._stream.aclose()
        except BaseException:  # cancelled, for one: it may never be free for another request
            await self._give_up()
            raise
        await give_back()
