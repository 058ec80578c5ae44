"""Speech on its way to the client: encoded, in one file or in server-sent events, as it is made; or whole."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import pybase64
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import error_body
from ..pings import PING, PING_SECONDS, with_silences
from ..waiting import while_connected
from .encoding import Encoder
from .narration import Narration

_ENCODERS = 4  # threads; FFmpeg works outside the interpreter's lock

_pool = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="moss-encode")


async def file_of(narration: Narration, encoder: Encoder) -> AsyncGenerator[bytes, None]:
    """The bytes of an audio file, as they come; never empty ones."""
    loop = asyncio.get_running_loop()
    async with contextlib.aclosing(narration.pcm()) as samples:
        async for pcm in samples:
            if len(pcm) and (data := await loop.run_in_executor(_pool, encoder.encode, pcm)):
                yield data
    if data := await loop.run_in_executor(_pool, encoder.finish):
        yield data


async def events_of(
    narration: Narration, encoder: Encoder, ping_seconds: float = PING_SECONDS
) -> AsyncGenerator[bytes, None]:
    """The same bytes in OpenAI's events. A failure before the first of them is raised, a later one is an event.

    Args:
        ping_seconds: after so long without an event there is a comment, also before the first one.
    """
    has_begun = False
    try:
        async with (
            contextlib.aclosing(file_of(narration, encoder)) as file,
            contextlib.aclosing(with_silences(file, ping_seconds)) as pieces,
        ):
            async for data in pieces:
                if data is None:
                    yield PING
                else:
                    yield _event({"type": "speech.audio.delta", "audio": pybase64.b64encode(data).decode()})
                has_begun = True
    except Exception as error:
        if not has_begun:
            raise
        yield _event({"type": "error", **error_body(error)})
        return
    turns = {} if narration.turns is None else {"turns": narration.turns}
    done = {"type": "speech.audio.done", "usage": narration.usage, "finish_reason": narration.finish_reason}
    yield _event({**done, **turns})


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


async def stream(
    body: AsyncGenerator[bytes, None], request: Request, media_type: str, headers: dict[str, str]
) -> Response:
    """An answer that begins once `body` has; until then its failures are ordinary errors.

    A failure after that cuts the connection, so that nobody takes half a file for a whole one.

    Raises:
        Exception: what `body` raises before its first bytes.
    """
    first = await _first_bytes(body, request)
    return _LiveResponse(first, body, media_type=media_type, headers=headers)


async def whole(
    narration: Narration, encoder: Encoder, request: Request, media_type: str, headers: dict[str, str]
) -> Response:
    """An answer that is sent once all of it is known, with its length; a failure is an ordinary error.

    Args:
        encoder: of files that are not growing.
    """

    async def everything() -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(file_of(narration, encoder)) as file:
            yield b"".join([data async for data in file])

    body = everything()
    content = await _first_bytes(body, request)
    await body.aclose()
    return Response(content, HTTPStatus.OK, {**headers, "X-Finish-Reason": narration.finish_reason}, media_type)


async def _first_bytes(body: AsyncGenerator[bytes, None], request: Request) -> bytes:
    async def begin() -> bytes:
        return await anext(body, b"")

    try:
        return await while_connected(request, begin())
    except BaseException:
        await body.aclose()
        raise


class _LiveResponse(StreamingResponse):
    """A streaming response whose source is closed at once when the client has gone: generation ends with it."""

    def __init__(self, first: bytes, body: AsyncGenerator[bytes, None], **options: Any) -> None:
        async def whole() -> AsyncGenerator[bytes, None]:
            yield first
            async for data in body:
                yield data

        super().__init__(whole(), HTTPStatus.OK, **options)
        self._source = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()
