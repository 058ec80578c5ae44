"""The routes of speech and of stored voices."""

import asyncio
import uuid
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from sglang_moss.audio.preparation import prepare_reference
from sglang_moss.errors import BadReference
from sglang_moss.request.text import SPEAKER_TAG, check_text

from ..errors import BadField, SpeechRoute
from .encoding import make_encoder, media_type
from .fields import SpeechFields
from .narration import Narration
from .plan import read_plan
from .responses import events_of, file_of, stream
from .schema import ERRORS, SPEECH, VoiceAnswer, VoiceDeleted, VoiceList
from .sessions import Engine
from .voice_store import Voice, VoiceStore, check_name

_MAX_TRANSCRIPT_CHARS = 10_000
_DEFAULT_FORMAT = "mp3"  # OpenAI's
_UPLOADS = 2  # that are decoded at a time; each may take 25 MB for its file and 250 MB for its samples


def speech_router(engine: Engine, store: VoiceStore) -> APIRouter:
    """`POST /v1/audio/speech`."""
    router = APIRouter(route_class=SpeechRoute)

    @router.post("/v1/audio/speech", response_class=Response, responses=SPEECH)
    async def create_speech(fields: SpeechFields, request: Request) -> Response:
        """Speak a script, as OpenAI's endpoint of this name does, in one voice or several.

        The audio is sent as it is made: one file in `response_format` (mp3 by default), or with `stream_format: sse`
        the same bytes in `speech.audio.delta` events and a last `speech.audio.done`. A file that breaks off was cut by
        a failure.

        Who speaks: `voice` is [S1]'s; `voices` gives stored voices by speaker, `references` clips that come along; all
        three may be mixed, from S1 on without a gap. Speakers without a voice get one from the model, anew each time.

        How: without `mode`, voices are cloned, and continued where every transcript is known. Scripts that do not fit
        one session are spoken in parts, and so is any with `split`: a part continues the one before it.
        """
        plan = await read_plan(fields, store, engine)
        narration = Narration(engine, plan, uuid.uuid4().hex)
        audio_format = fields.response_format or _DEFAULT_FORMAT
        encoder = make_encoder(audio_format, engine.sample_rate)
        headers = {"X-Sample-Rate": str(engine.sample_rate)}
        if fields.stream_format == "sse":
            return await stream(events_of(narration, encoder), request, "text/event-stream", headers)
        return await stream(file_of(narration, encoder), request, media_type(audio_format), headers)

    return router


def voice_router(engine: Engine, store: VoiceStore) -> APIRouter:
    """`GET`, `POST` and `DELETE /v1/audio/voices`."""
    router = APIRouter(route_class=SpeechRoute, responses=ERRORS)
    decoding = asyncio.Semaphore(_UPLOADS)

    @router.get("/v1/audio/voices")
    async def list_voices() -> VoiceList:
        """Stored voices, by name."""
        return VoiceList(data=[_shown(voice) for voice in await asyncio.to_thread(store.list_voices)])

    @router.post("/v1/audio/voices", status_code=HTTPStatus.CREATED)
    async def add_voice(
        name: Annotated[str, Form()], audio: Annotated[UploadFile, File()], text: Annotated[str, Form()] = ""
    ) -> VoiceAnswer:
        """Store a voice: a clip, and what is said in it (without which it can be cloned, but not continued)."""
        check_name(name)
        transcript = _check_transcript(text, engine)
        async with decoding:
            data = await audio.read(engine.limits.max_bytes + 1)
            seconds = await asyncio.to_thread(_seconds_of, data, engine)
            await engine.learn(data)
        return _shown(await asyncio.to_thread(store.add, name, data, transcript, seconds))

    @router.delete("/v1/audio/voices/{name}")
    async def remove_voice(name: str) -> VoiceDeleted:
        """Forget a voice."""
        await asyncio.to_thread(store.remove, name)
        return VoiceDeleted(id=name)

    return router


def _shown(voice: Voice) -> VoiceAnswer:
    return VoiceAnswer(id=voice.name, **asdict(voice))


def _check_transcript(text: str, engine: Engine) -> str | None:
    """What is said in a voice's clip: one speaker's words, or None."""
    if not text.strip():
        return None
    check_text(text, engine.special_strings)
    if len(text) > _MAX_TRANSCRIPT_CHARS or SPEAKER_TAG.search(text):
        raise BadField(f"text: at most {_MAX_TRANSCRIPT_CHARS} characters, without speaker tags", "text")
    return text.strip()


def _seconds_of(data: bytes, engine: Engine) -> float:
    """Length of an uploaded clip, after everything that will be done to it when it is used."""
    try:
        waveform = prepare_reference(data, engine.sample_rate, engine.limits, position=0)
    except BadReference as error:
        raise BadField(f"audio: {error.problem or error}", "audio") from None
    if len(waveform) < engine.frame_samples:
        raise BadField("audio: the clip is shorter than one frame, 0.08 s", "audio")
    return len(waveform) / engine.sample_rate
