"""The routes of speech and of stored voices."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile

from sglang_moss.audio.preparation import prepare_reference
from sglang_moss.errors import BadReference, BadText
from sglang_moss.request.ordinary_text import transcript_of
from sglang_moss.request.text import check_characters

from ..errors import BadField, SpeechRoute
from .encoding import Encoder, make_encoder, media_type
from .fields import SpeechFields
from .narration import Narration
from .plan import read_plan
from .responses import events_of, file_of, stream, whole
from .schema import (
    CLIP,
    ERRORS,
    SPEECH,
    ProfileAnswer,
    SamplingAnswer,
    VoiceAnswer,
    VoiceDeleted,
    VoiceList,
    VoiceName,
)
from .sessions import Engine
from .tempo import StretchingEncoder
from .voice_store import Voice, VoiceStore, check_name

_MAX_TRANSCRIPT_CHARS = 10_000
_DEFAULT_FORMAT = "mp3"  # OpenAI's
_UPLOADS = 2  # that are decoded at a time; each may take 25 MB for its file and 250 MB for its samples


def speech_router(engine: Engine, store: VoiceStore, *, streams: bool = True) -> APIRouter:
    """`POST /v1/audio/speech`.

    Args:
        streams: what requests mean that do not say `stream`.
    """
    router = APIRouter(route_class=SpeechRoute)

    @router.post("/v1/audio/speech", response_class=Response, responses=SPEECH)
    async def create_speech(fields: SpeechFields, request: Request) -> Response:
        """Speak a script, as OpenAI's endpoint of this name does, in one voice or several.

        The audio is sent as it is made: one file in `response_format` (mp3 by default), or with `stream_format: sse`
        the same bytes in `speech.audio.delta` events and a last `speech.audio.done` with its `finish_reason`. A file
        that breaks off was cut by a failure. With `stream: false` the file comes once it is whole: it knows its own
        length, the answer has a Content-Length, and its `X-Finish-Reason`.

        How long: up to `max_seconds`, or else up to some times what the script suggests, so that a model that does not
        come to an end is cut. The `finish_reason` is "stop", or "length" where it was cut.

        Who speaks: `voice` is [S1]'s; `voices` gives stored voices by speaker, `references` clips that come along; all
        three may be mixed, from S1 on without a gap. Speakers without a voice get one from the model, anew each time.

        How: without `mode`, voices are cloned, and continued where every transcript is known. Scripts that do not fit
        one session are spoken in parts, and so is any with `split`: a part continues the one before it. `X-Seed` names
        the `seed` that repeats the answer, also where none was sent.
        """
        if fields.stream is False and fields.stream_format == "sse":
            raise BadField("stream: events are streamed; leave out stream or stream_format", "stream")
        grows = fields.stream_format == "sse" or (streams if fields.stream is None else fields.stream)
        plan = await read_plan(fields, store, engine)
        narration = Narration(engine, plan, uuid.uuid4().hex)
        audio_format = fields.audio_format or _DEFAULT_FORMAT
        encoder: Encoder = make_encoder(audio_format, engine.sample_rate, growing=grows)
        if plan.speed != 1.0:
            encoder = StretchingEncoder(encoder, plan.speed, engine.sample_rate)
        headers = {"X-Sample-Rate": str(engine.sample_rate), "X-Seed": str(plan.seed)}
        if fields.stream_format == "sse":
            return await stream(events_of(narration, encoder), request, "text/event-stream", headers)
        if not grows:
            return await whole(narration, encoder, request, media_type(audio_format), headers)
        return await stream(file_of(narration, encoder), request, media_type(audio_format), headers)

    return router


def profile_router(engine: Engine, offers: Sequence[str] = ()) -> APIRouter:
    """`GET /v1/audio/profile`.

    Args:
        offers: what the page's own routes are good for here.
    """
    router = APIRouter(route_class=SpeechRoute, responses=ERRORS)

    @router.get("/v1/audio/profile")
    async def show_profile() -> ProfileAnswer:
        """Which model of the family is served, what its requests are made of, and how it is drawn from by default."""
        profile = engine.profile
        return ProfileAnswer(
            name=profile.name,
            model=profile.model,
            fields=list(profile.fields),
            required=list(profile.required),
            max_references=profile.max_references,
            max_reference_seconds=engine.limits.max_seconds,
            frames_per_second=engine.frames_per_second,
            audio=SamplingAnswer(**asdict(profile.audio)),
            text=None if profile.text is None else SamplingAnswer(**asdict(profile.text)),
            repetition_penalty=profile.repetition_penalty,
            offers=list(offers),
        )

    return router


def voice_router(engine: Engine, store: VoiceStore) -> APIRouter:
    """`GET` and `POST /v1/audio/voices`; `GET`, `PUT` and `DELETE` of one of them; `GET` of its clip."""
    router = APIRouter(route_class=SpeechRoute, responses=ERRORS)
    decoding = asyncio.Semaphore(_UPLOADS)

    async def heard(upload: _Upload) -> tuple[bytes, str | None, float]:
        """The clip, what is said in it, and its length; the codec knows it from now on."""
        transcript = _check_transcript(upload.text, engine)
        async with decoding:
            data = await upload.audio.read(engine.limits.max_bytes + 1)
            seconds = await asyncio.to_thread(_seconds_of, data, engine)
            await engine.learn(data)
        return data, transcript, seconds

    @router.get("/v1/audio/voices")
    async def list_voices() -> VoiceList:
        """Stored voices and those that come with the server, by name."""
        voices = await asyncio.to_thread(store.list_voices)
        names = [VoiceName(id=voice.name, name=voice.name) for voice in voices]
        return VoiceList(data=[_shown(voice, starter=store.is_starter(voice)) for voice in voices], voices=names)

    @router.post("/v1/audio/voices", status_code=HTTPStatus.CREATED)
    async def add_voice(name: Annotated[str, Form()], upload: Annotated[_Upload, Depends()]) -> VoiceAnswer:
        """Store a voice: a clip, and what is said in it (without which it can be cloned, but not continued)."""
        check_name(name)
        return _shown(await asyncio.to_thread(store.add, name, *await heard(upload)))

    @router.get("/v1/audio/voices/{name}")
    async def show_voice(name: str) -> VoiceAnswer:
        """One stored voice, also by a name that means it."""
        voice = await asyncio.to_thread(lambda: store.about(store.meant_by(name)))
        return _shown(voice, starter=store.is_starter(voice))

    @router.get("/v1/audio/voices/{name}/clip", response_class=Response, responses=CLIP)
    async def fetch_clip(name: str) -> Response:
        """The file of a stored voice, as it was sent."""
        _voice, data = await asyncio.to_thread(store.load, name)
        # Anybody may have sent it, as whatever a browser would make of it.
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    @router.put("/v1/audio/voices/{name}")
    async def put_voice(name: str, upload: Annotated[_Upload, Depends()], response: Response) -> VoiceAnswer:
        """Replace a stored voice, or store it where there is none; nobody ever finds half of it."""
        check_name(name)
        voice, is_new = await asyncio.to_thread(store.put, name, *await heard(upload))
        response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
        return _shown(voice)

    @router.delete("/v1/audio/voices/{name}")
    async def remove_voice(name: str) -> VoiceDeleted:
        """Forget a voice."""
        await asyncio.to_thread(store.remove, name)
        return VoiceDeleted(id=name)

    return router


class _Upload:
    """A clip and its transcript in a form, by our names for them or by those of other servers' clients."""

    def __init__(
        self,
        audio: Annotated[UploadFile | None, File()] = None,
        audio_sample: Annotated[UploadFile | None, File(description="The same as `audio`.")] = None,
        file: Annotated[UploadFile | None, File(description="The same as `audio`.")] = None,
        text: Annotated[str, Form()] = "",
        ref_text: Annotated[str, Form(description="The same as `text`.")] = "",
    ) -> None:
        files = [one for one in (audio, audio_sample, file) if one is not None]
        if len(files) != 1:
            raise BadField(f"audio: expected one file in the form (multipart/form-data), got {len(files)}", "audio")
        if text.strip() and ref_text.strip():
            raise BadField("ref_text: means the same as text; send one", "ref_text")
        self.audio = files[0]
        self.text = text if text.strip() else ref_text


def _shown(voice: Voice, *, starter: bool = False) -> VoiceAnswer:
    return VoiceAnswer(id=voice.name, **asdict(voice), starter=starter)


def _check_transcript(text: str, engine: Engine) -> str | None:
    """What is said in a voice's clip: one speaker's words, or None."""
    if not text.strip():
        return None
    if len(text) > _MAX_TRANSCRIPT_CHARS:
        raise BadField(
            f"text: at most {_MAX_TRANSCRIPT_CHARS} characters, got {len(text)}; cut clip and text",
            "text",
            "transcript_too_long",
        )
    try:
        check_characters(text, engine.special_strings, "text")
        return transcript_of(text, None, "text")
    except BadText as error:
        raise BadField(str(error), "text", error.code) from None


def _seconds_of(data: bytes, engine: Engine) -> float:
    """Length of an uploaded clip, after everything that will be done to it when it is used."""
    try:
        waveform = prepare_reference(data, engine.sample_rate, engine.limits, 0, engine.frame_samples)
    except BadReference as error:
        raise BadField(f"audio: {error.problem or error}", "audio", error.code) from None
    return len(waveform) / engine.sample_rate
