"""The body of `POST /v1/audio/speech`: OpenAI's fields, ours beside them, and what other servers' clients send.

Types are checked here; ranges are checked where `/generate` checks them, so that there is one place for each. What
another server of speech would call differently is read as what it means here; what cannot matter is taken and passed
over; everything else that is not known is refused.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
DEFAULT_VOICE = "default"
_MAX_SCRIPT_CHARS = 1_000_000  # about a day of speech
_MAX_NAME_CHARS = 256
_OF_THE_MODEL = "As in /generate; by default the model's own, which `GET /v1/audio/profile` tells."

_FORMATS = {"ogg": "opus", "ogg_opus": "opus", "wave": "wav", "mpeg": "mp3", "raw": "pcm", "s16le": "pcm"}


def _number(value: Any) -> Any:
    """A number that came as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _integer(value: Any) -> Any:
    """An integer that came as text, or with a fraction of nothing."""
    if isinstance(value, str) and (digits := value.strip()).removeprefix("-").isdecimal() and len(digits) < 32:
        return int(digits)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _switch(value: Any) -> Any:
    """A truth that came as text."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _switch_on(value: Any) -> Any:
    return True if value is None else _switch(value)


def _format(value: Any) -> Any:
    """A format by any of its names, such as `MP3`, `ogg` or `mp3_44100_128`."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return _FORMATS.get(name, name if name in _FORMATS else name.partition("_")[0])


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _voice(value: Any) -> Any:
    """A voice by its name, or as OpenAI's newer clients have it; an empty name is none."""
    if isinstance(value, dict):
        value = value.get("id", value.get("name"))
        if value is None:
            raise ValueError('expected the name of a voice, or {"id": NAME}')
    return None if value == "" else value


def _speaker(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Short = Annotated[str, Field(max_length=_MAX_NAME_CHARS)]
Words = Annotated[str, Field(max_length=_MAX_SCRIPT_CHARS)]
Number = Annotated[float, BeforeValidator(_number)]
Integer = Annotated[int, BeforeValidator(_integer)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Format = Annotated[AudioFormat, BeforeValidator(_format)]
VoiceName = Annotated[
    Short | None,
    BeforeValidator(_voice),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": _MAX_NAME_CHARS},
                {"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}}},
                {"type": "null"},
            ]
        }
    ),
]
SpeakerName = Annotated[
    Short,
    BeforeValidator(_speaker),
    Field(description='1 or "S1" for the speaker of [S1], and so on up to 5.'),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": _MAX_NAME_CHARS}]}),
]


def _passed_over(why: str) -> Any:
    """A field of other servers, without a meaning that could be missed here."""
    return Field(None, description=f"Taken from clients of other servers, and passed over: {why}.")


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ReferenceFields(_Fields):
    """One speaker's clip, sent along."""

    audio: str = Field(description="A data URI, base64 or an http(s) URL: WAV, FLAC, OGG, MP3, M4A, MP4, AAC or WebM.")
    text: Annotated[str | None, Field(max_length=10_000)] = Field(None, description="What is said in the clip.")
    speaker: SpeakerName | None = Field(None, description="Whose voice it is; by default its place in the list.")


class TurnFields(_Fields):
    """One turn of a dialogue."""

    speaker: SpeakerName
    text: Words


class SpeechFields(_Fields):
    """What is spoken, by whom, and how it is sent."""

    model: Short | None = Field(None, description="Taken as it comes: this server has one model.")
    input: Words | None = Field(
        None,
        description="The script, with or without speaker tags [S1] to [S5]; for MOSS-SoundEffect what is to be heard.",
    )
    dialogue: list[TurnFields] | None = Field(None, description="The script as a list of turns, instead of `input`.")
    voice: VoiceName = Field(DEFAULT_VOICE, description="The voice of [S1]; `default` has no reference.")
    voices: dict[str, VoiceName] | None = Field(None, description='Stored voices by speaker: {"S1": "alice"}.')
    references: list[ReferenceFields] | None = Field(None, description="Clips by speaker; may be mixed with `voices`.")
    ref_audio: str | None = Field(None, description="One clip, as `audio` of the first of `references`.")
    ref_text: Annotated[str | None, Field(max_length=10_000)] = Field(None, description="What is said in `ref_audio`.")
    instructions: Words | None = Field(
        None, description="How it is to be spoken; for MOSS-VoiceGenerator the voice that is to speak."
    )
    instruction: Words | None = Field(None, description="The same as `instructions`.")
    ambient_sound: Words | None = Field(None, description="What is heard behind the speech.")
    quality: Words | None = Field(None, description="MOSS-TTS: the quality of the recording, in its prompt's words.")
    sound_event: Words | None = Field(None, description="MOSS-TTS: a sound that happens in the speech.")
    response_format: Format | None = None
    output_format: Format | None = Field(None, description="The same as `response_format`, which goes before it.")
    stream: Switch | None = Field(
        None,
        description="false: one answer with its Content-Length and a file that knows its length, once all of it is "
        "spoken. By default the file is sent while it is made.",
    )
    stream_format: Annotated[Literal["audio", "sse"], BeforeValidator(_lower)] | None = None
    speed: Number | None = Field(None, description="0.5 to 2.0: stretched in time, with its pitch kept.")
    mode: Short | None = Field(None, description="As in /generate.")
    normalize: Annotated[bool, BeforeValidator(_switch_on)] = Field(
        True, description="Rewrite the script the way the model was trained to read it."
    )
    temperature: Number | None = Field(None, description=_OF_THE_MODEL)
    top_p: Number | None = Field(None, description=_OF_THE_MODEL)
    top_k: Integer | None = Field(None, description=_OF_THE_MODEL)
    repetition_penalty: Number | None = Field(None, description=_OF_THE_MODEL)
    seed: Integer | None = None
    duration_seconds: Number | None = Field(
        None, description="A length that is wished for, by MOSS-TTS and MOSS-SoundEffect; it may be missed."
    )
    max_seconds: Number | None = Field(
        None, description="Of all audio; cut there. By default several times what the script suggests."
    )
    chunk_frames: Integer | None = Field(
        None, description="Frames of 80 ms that are sent at a time, at most, after the first."
    )
    first_frames: Integer | None = Field(
        None, description="Frames that are sent first: fewer are heard sooner, more last longer."
    )
    timestamps: Switch | None = Field(
        None,
        description="With `stream_format: sse`: the last event has `turns`, with the speaker, the start and end in "
        "seconds, and the text of each, estimated from the sound.",
    )
    split: Switch | None = Field(
        None, description="Speak the script in parts; by default only what does not fit one session."
    )
    split_seconds: Number | None = Field(None, description="Length of a part, about; implies `split`.")

    language: Any = Field(
        None,
        description="MOSS-TTS: the script's language by its English name. Passed over by MOSS-TTSD, which hears it.",
    )
    lang_code: Any = Field(None, description="The same as `language`.")
    user: Any = _passed_over("nobody is told of it")
    task_type: Any = _passed_over("the voices say what it would say")

    @property
    def audio_format(self) -> AudioFormat | None:
        """What was asked for, by either name."""
        return self.response_format or self.output_format
