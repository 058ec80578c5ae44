"""The client for asyncio: what `MossClient` is, awaited."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from .client import GENERATE_PATH, JSON, SPEECH_PATH, ReadEvent, encoded, read_event, read_speech_event
from .connection import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, DEFAULT_URL, connection, refusal, unreachable
from .events import EventReader
from .request import Reference, Settings, request_body
from .retrying import async_retrying, did_nothing
from .speech import Speech, SpeechChunk, json_of
from .speech_request import SpeechSettings, Voices, speech_body
from .voices import VOICES_PATH, Voice, voice_path, voices_in


class AsyncMossClient:
    """`MossClient` for asyncio: the same arguments, answers and errors."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        self._http = httpx.AsyncClient(**connection(base_url, api_key, timeout_s))
        self._retrying = async_retrying(retries)
        self._retrying_change = async_retrying(retries, did_nothing)

    async def generate(self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]) -> Speech:
        """See `MossClient.generate`."""
        return Speech.from_body(await self._retrying(self.answer, encoded(request_body(text, references, settings))))

    def stream(
        self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]
    ) -> AsyncGenerator[SpeechChunk, None]:
        """See `MossClient.stream`."""
        body = encoded(request_body(text, references, settings), stream=True)
        return self._streamed(GENERATE_PATH, body, read_event)

    def speech(
        self, text: str, voices: Voices | None = None, **settings: Unpack[SpeechSettings]
    ) -> AsyncGenerator[SpeechChunk, None]:
        """See `MossClient.speech`."""
        return self._streamed(SPEECH_PATH, encoded(speech_body(text, voices or {}, settings)), read_speech_event)

    async def voices(self) -> list[Voice]:
        """See `MossClient.voices`."""
        return voices_in(json_of((await self._retrying(self._request, "GET", VOICES_PATH)).content))

    async def add_voice(self, name: str, audio: bytes | str | Path, text: str | None = None) -> Voice:
        """See `MossClient.add_voice`."""
        data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
        form = {"name": name, "text": text or ""}
        response = await self._retrying_change(self._request, "POST", VOICES_PATH, data=form, files={"audio": data})
        return Voice.from_answer(json_of(response.content))

    async def remove_voice(self, name: str) -> None:
        """See `MossClient.remove_voice`."""
        await self._retrying_change(self._request, "DELETE", voice_path(name))

    async def answer(self, body: bytes) -> bytes:
        """Send an encoded `/generate` request, once; the body of its answer, not yet read.

        Raises:
            ServerUnreachable, ServerRefused.
        """
        return (await self._request("POST", GENERATE_PATH, content=body, headers=JSON)).content

    async def events(self, body: bytes) -> AsyncIterator[bytes]:
        """Send an encoded `/generate` request that streams, once; the data of its events, not yet read.

        Raises:
            ServerUnreachable, ServerRefused.
        """
        reader = EventReader()
        async with aclosing(self._events(GENERATE_PATH, body, reader)) as events:
            async for data, _headers in events:
                yield data
        reader.check_ended()

    async def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **content)
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error
        if not response.is_success:
            raise refusal(response)
        return response

    async def _streamed(self, path: str, body: bytes, read: ReadEvent) -> AsyncGenerator[SpeechChunk, None]:
        """The chunks of an answer, which is asked for anew where it fails before the first of them."""

        async def begin() -> tuple[list[SpeechChunk], AsyncGenerator[SpeechChunk, None]]:
            chunks = self._chunks(path, body, read)
            first = await anext(chunks, None)
            return ([] if first is None else [first]), chunks

        first, rest = await self._retrying(begin)
        async with aclosing(rest):
            for chunk in first:
                yield chunk
            async for chunk in rest:
                yield chunk

    async def _chunks(self, path: str, body: bytes, read: ReadEvent) -> AsyncGenerator[SpeechChunk, None]:
        reader = EventReader()
        async with aclosing(self._events(path, body, reader)) as events:
            async for data, headers in events:
                chunk = read(data, headers)
                if chunk is None:
                    reader.ended = True
                else:
                    yield chunk
        reader.check_ended()

    async def _events(
        self, path: str, body: bytes, reader: EventReader
    ) -> AsyncGenerator[tuple[bytes, httpx.Headers], None]:
        try:
            async with self._http.stream("POST", path, content=body, headers=JSON) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal(response)
                async for piece in response.aiter_bytes():
                    for data in reader.feed(piece):
                        yield data, response.headers
        except httpx.RequestError as error:
            raise unreachable(self._http.base_url, error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
