"""The client for asyncio: what `MossClient` is, awaited."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from . import calls
from .calls import Answer, Call, Event, StreamCall, StreamReader
from .connection import Connected, check_success
from .profile import ServerProfile
from .request import Reference, Settings
from .retrying import async_retrying
from .speech import Speech, SpeechChunk
from .speech_request import SpeechSettings, Voices
from .transport import many_at_once
from .voices import Voice


class AsyncMossClient(Connected[httpx.AsyncClient]):
    """`MossClient` for asyncio: the same arguments, answers and errors."""

    _pool = staticmethod(many_at_once)

    async def generate(self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]) -> Speech:
        """See `MossClient.generate`."""
        return await self._ask(calls.generate(text, references, settings))

    def stream(
        self, text: str, references: Sequence[Reference] = (), **settings: Unpack[Settings]
    ) -> AsyncGenerator[SpeechChunk, None]:
        """See `MossClient.stream`."""
        return self._stream(calls.stream(text, references, settings))

    def speech(
        self, text: str, voices: Voices | None = None, **settings: Unpack[SpeechSettings]
    ) -> AsyncGenerator[SpeechChunk, None]:
        """See `MossClient.speech`."""
        return self._stream(calls.speech(text, voices, settings))

    async def profile(self) -> ServerProfile:
        """See `MossClient.profile`."""
        return await self._ask(calls.profile())

    async def voices(self) -> list[Voice]:
        """See `MossClient.voices`."""
        return await self._ask(calls.voices())

    async def add_voice(self, name: str, audio: bytes | str | Path, text: str | None = None) -> Voice:
        """See `MossClient.add_voice`."""
        return await self._ask(calls.add_voice(name, audio, text))

    async def voice(self, name: str) -> Voice:
        """See `MossClient.voice`."""
        return await self._ask(calls.voice(name))

    async def voice_clip(self, name: str) -> bytes:
        """See `MossClient.voice_clip`."""
        return await self._ask(calls.voice_clip(name))

    async def replace_voice(self, name: str, audio: bytes | str | Path, text: str | None = None) -> Voice:
        """See `MossClient.replace_voice`."""
        return await self._ask(calls.replace_voice(name, audio, text))

    async def remove_voice(self, name: str) -> None:
        """See `MossClient.remove_voice`."""
        await self._ask(calls.remove_voice(name))

    async def answer(self, body: bytes) -> bytes:
        """Send an encoded `/generate` request, once; the body of its answer, not yet read.

        Raises:
            ClientError: `ServerUnreachable` or `ServerRefused`.
        """
        return await self._send(calls.unread(body))

    def events(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """Send an encoded `/generate` request that streams, once; the data of its events, not yet read.

        Raises:
            ClientError: `ServerUnreachable` or `ServerRefused`.
        """
        return self._events(calls.unread_stream(body))

    async def _ask(self, call: Call[Answer]) -> Answer:
        return call.read(await async_retrying(self._retries, call.may_repeat)(self._send, call))

    async def _send(self, call: Call[Any]) -> bytes:
        with self._reaching():
            response = await self._http.request(call.method, call.path, **call.content)
        check_success(response)
        return response.content

    async def _stream(self, call: StreamCall[Event]) -> AsyncGenerator[Event, None]:
        """The events of an answer, which is asked for anew where it fails before the first of them."""

        async def begin() -> tuple[Event | None, AsyncGenerator[Event, None]]:
            events = self._events(call)
            return await anext(events, None), events

        first, rest = await async_retrying(self._retries)(begin)
        async with aclosing(rest):
            if first is not None:
                yield first
            async for event in rest:
                yield event

    async def _events(self, call: StreamCall[Event]) -> AsyncGenerator[Event, None]:
        with self._reaching():
            async with self._http.stream("POST", call.path, **call.content) as response:
                if not response.is_success:
                    await response.aread()
                reader = StreamReader(call, response)
                async for piece in response.aiter_bytes():
                    for event in reader.feed(piece):
                        yield event
        reader.check_ended()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
