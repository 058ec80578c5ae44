"""Clients of a running server: one that waits, and one for asyncio.

with MossClient("http://127.0.0.1:30000") as client:
    speech = client.generate("[S1] Hello. [S2] Hi.", [Reference("a.wav", "..."), Reference("b.wav", "...")], seed=1)
    Path("out.wav").write_bytes(speech.wav)
    for chunk in client.stream("[S1] Hello."):
        player.write(chunk.pcm)
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self, Unpack

import httpx

from .connection import DEFAULT_TIMEOUT_S, DEFAULT_URL, connection, refusal, unreachable
from .events import EventReader
from .request import Reference, Settings, request_body
from .speech import Speech, SpeechChunk

_PATH = "/generate"
_JSON = {"Content-Type": "application/json"}


class MossClient:
    """Sends requests over one pool of connections; may be used by several threads.

    Args:
        base_url: of the server.
        api_key: of the server, if it was started with one.
        timeout_s: how long to wait for more of an answer; one that does not stream comes all at once.
    Raises:
        ValueError: no URL of a server, or a key that no HTTP header can carry.
    """

    def __init__(
        self, base_url: str = DEFAULT_URL, api_key: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._http = httpx.Client(**connection(base_url, api_key, timeout_s))

    def generate(self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]) -> Speech:
        """Speak a text.

        Args:
            text: a script, `[S1] ... [S2] ...`; directives may stand in front of it.
            references: clips of the speakers, [S1] first.
            settings: see `Settings`.
        Raises:
            ClientError: see `errors`.
            ValueError, OSError: see `request_body`; nothing was sent.
        """
        body = encoded(request_body(text, references, settings))
        try:
            response = self._http.post(_PATH, content=body, headers=_JSON)
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response)
        return Speech.from_body(response.content)

    def stream(
        self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]
    ) -> Iterator[SpeechChunk]:
        """Speak a text; the speech comes while it is made.

        Arguments and errors are those of `generate`; those about the arguments rise here, the others while iterating,
        also after some chunks. Closing the iterator early ends the request.
        """
        return self._chunks(encoded(request_body(text, references, settings), stream=True))

    def _chunks(self, body: bytes) -> Iterator[SpeechChunk]:
        events = EventReader()
        try:
            with self._http.stream("POST", _PATH, content=body, headers=_JSON) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise refusal(response)
                for piece in response.iter_bytes():
                    for data in events.feed(piece):
                        yield SpeechChunk.from_event(data)
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        events.check_ended()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncMossClient:
    """`MossClient` for asyncio: the same arguments, answers and errors."""

    def __init__(
        self, base_url: str = DEFAULT_URL, api_key: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._http = httpx.AsyncClient(**connection(base_url, api_key, timeout_s))

    async def generate(self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]) -> Speech:
        """See `MossClient.generate`."""
        return Speech.from_body(await self.answer(encoded(request_body(text, references, settings))))

    def stream(
        self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]
    ) -> AsyncIterator[SpeechChunk]:
        """See `MossClient.stream`."""
        return self._chunks(encoded(request_body(text, references, settings), stream=True))

    async def answer(self, body: bytes) -> bytes:
        """Send an encoded request; the body of its answer, not yet read.

        Raises:
            ServerUnreachable, ServerRefused.
        """
        try:
            response = await self._http.post(_PATH, content=body, headers=_JSON)
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response)
        return response.content

    async def events(self, body: bytes) -> AsyncIterator[bytes]:
        """Send an encoded request that streams; the data of its events, not yet read.

        Raises:
            ServerUnreachable, ServerRefused.
        """
        events = EventReader()
        try:
            async with self._http.stream("POST", _PATH, content=body, headers=_JSON) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise refusal(response)
                async for piece in response.aiter_bytes():
                    for data in events.feed(piece):
                        yield data
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        events.check_ended()

    async def _chunks(self, body: bytes) -> AsyncIterator[SpeechChunk]:
        async for data in self.events(body):
            yield SpeechChunk.from_event(data)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def encoded(body: dict[str, Any], *, stream: bool = False) -> bytes:
    """A request's body as it travels."""
    return json.dumps({**body, "stream": True} if stream else body).encode()
