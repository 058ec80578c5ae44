"""`POST /page/transcript`: what is said in a clip, drafted by a recogniser; somebody reads it through."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ...evaluation.hear import UNUSABLE_CLIP
from ..errors import BadField, HelperFailed, SpeechRoute
from ..waiting import while_connected
from .programs import run_program

_PROGRAM = "sglang_moss.evaluation.hear"
_SECONDS = 180.0
_AT_A_TIME = 1  # each takes a core


class TranscriptAnswer(BaseModel):
    """A draft; empty where nothing was understood."""

    text: str


def transcript_router(recogniser: str, model: str | None, languages: frozenset[str]) -> APIRouter:
    """`POST /page/transcript`.

    Args:
        recogniser: one of `evaluation.recognisers.NAMES`.
        model: a folder or a name; None: its own.
        languages: that it hears.
    """
    router = APIRouter(route_class=SpeechRoute)
    places = asyncio.Semaphore(_AT_A_TIME)

    async def hear(clip: bytes, language: str) -> TranscriptAnswer:
        arguments = [recogniser, language, *([] if model is None else [model])]
        async with places:
            ended = await run_program(_PROGRAM, arguments, clip, _SECONDS)
        if ended.status == UNUSABLE_CLIP:
            raise BadField(f"audio: {ended.complaint}", "audio", "clip_unreadable")
        if ended.status:
            raise HelperFailed(f"the recogniser failed: {ended.complaint}")
        return TranscriptAnswer(text=ended.output.decode())

    @router.post("/page/transcript", include_in_schema=False)
    async def draft(request: Request) -> TranscriptAnswer:
        """Hear a clip, the body; in the query its `language`, en or zh."""
        language = request.query_params.get("language", "")
        if language not in languages:
            raise BadField(f"language: one of {', '.join(sorted(languages))}", "language")
        clip = await request.body()
        if not clip:
            raise BadField("audio: expected an audio file as the body, got no bytes", "audio", "clip_unreadable")
        return await while_connected(request, hear(clip, language))

    return router
