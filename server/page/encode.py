"""`POST /page/encode`: what the page has heard, as a file; nothing is spoken for it.

Browsers write WAV and little else, and a second generation would be another speech. The samples come as they are, and
go through the one table of formats that the server's own answers go through.
"""

import asyncio
import io
from typing import Literal, get_args

import numpy as np
from fastapi import APIRouter, Request, Response

from sglang_moss.audio.formats import FILE_FORMATS, FileEncoder

from ..errors import BadField, SpeechRoute
from ..waiting import WaitingRoom

FileName = Literal["wav", "flac", "mp3", "opus", "aac", "m4a"]
MEDIA_TYPES: dict[FileName, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "m4a": "audio/mp4",
}
_LEAST_RATE, _LARGEST_RATE = 8_000, 48_000  # Hz
_ENCODINGS = 2  # at a time; an hour takes a core for some ten seconds
_PIECE_SAMPLES = 1 << 16
_BYTES_PER_SAMPLE = 2


def encode_router() -> APIRouter:
    """`POST /page/encode`."""
    router = APIRouter(route_class=SpeechRoute)
    places, room = asyncio.Semaphore(_ENCODINGS), WaitingRoom()

    @router.post("/page/encode", response_class=Response, include_in_schema=False)
    async def encode(request: Request) -> Response:
        """16-bit little-endian mono samples, the body, as one whole file.

        In the query: `format`, one of wav, flac, mp3, opus, aac and m4a; `rate`, in Hz.
        """
        name = _format(request.query_params.get("format", ""))
        rate = _rate(request.query_params.get("rate", ""))
        samples = await request.body()
        if not samples or len(samples) % _BYTES_PER_SAMPLE:
            raise BadField(f"the body: expected 16-bit samples, got {len(samples)} bytes", None)
        with room.place():
            async with places:
                data = await asyncio.to_thread(_file_of, samples, name, rate)
        return Response(data, media_type=MEDIA_TYPES[name])

    return router


def _format(value: str) -> FileName:
    for name in get_args(FileName):
        if value == name:
            return name
    raise BadField(f"format: one of {', '.join(get_args(FileName))}", "format")


def _rate(value: str) -> int:
    if value.isascii() and value.isdecimal() and len(value) < 8 and _LEAST_RATE <= int(value) <= _LARGEST_RATE:
        return int(value)
    raise BadField(f"rate: of the samples in Hz, from {_LEAST_RATE} to {_LARGEST_RATE}", "rate")


def _file_of(samples: bytes, name: FileName, rate: int) -> bytes:
    """A file that knows its own length."""
    pcm = np.frombuffer(samples, "<i2")
    kept = io.BytesIO()
    file = FileEncoder(kept, FILE_FORMATS[name], rate, growing=False)
    for start in range(0, len(pcm), _PIECE_SAMPLES):
        file.encode(pcm[start : start + _PIECE_SAMPLES])
    file.finish()
    return kept.getvalue()
