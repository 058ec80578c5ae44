"""The body of `POST /v1/audio/speech`: OpenAI's fields, and ours beside them.

Types are checked here; ranges are checked where `/generate` checks them, so that there is one place for each.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
DEFAULT_VOICE = "default"
_MAX_SCRIPT_CHARS = 1_000_000  # about a day of speech

Short = Annotated[str, Field(max_length=256)]
Words = Annotated[str, Field(max_length=_MAX_SCRIPT_CHARS)]
SpeakerName = Annotated[int | Short, Field(description='1 or "S1" for the speaker of [S1], and so on up to 5.')]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VoiceId(_Fields):
    """A voice as OpenAI's newer clients name it."""

    id: Short


VoiceName = Short | VoiceId


class ReferenceFields(_Fields):
    """One speaker's clip, sent along."""

    audio: str = Field(description="A data URI, base64 or an http(s) URL: WAV, FLAC, OGG or MP3.")
    text: Annotated[str | None, Field(max_length=10_000)] = Field(None, description="What is said in the clip.")
    speaker: SpeakerName | None = Field(None, description="Whose voice it is; by default its place in the list.")


class TurnFields(_Fields):
    """One turn of a dialogue."""

    speaker: SpeakerName
    text: Words


class SpeechFields(_Fields):
    """What is spoken, by whom, and how it is sent."""

    model: Short | None = Field(None, description="Taken as it comes: this server has one model.")
    input: Words | None = Field(None, description="The script, with or without speaker tags [S1] to [S5].")
    dialogue: list[TurnFields] | None = Field(None, description="The script as a list of turns, instead of `input`.")
    voice: VoiceName | None = Field(DEFAULT_VOICE, description="The voice of [S1]; `default` has no reference.")
    voices: dict[str, VoiceName] | None = Field(None, description='Stored voices by speaker: {"S1": "alice"}.')
    references: list[ReferenceFields] | None = Field(None, description="Clips by speaker; may be mixed with `voices`.")
    instructions: Words | None = Field(None, description="How it is to be spoken.")
    instruction: Words | None = Field(None, description="The same as `instructions`.")
    ambient_sound: Words | None = Field(None, description="What is heard behind the speech.")
    response_format: AudioFormat | None = None
    stream_format: Literal["audio", "sse"] | None = None
    speed: float | None = Field(None, description="1.0 only.")
    mode: Short | None = Field(None, description="As in /generate.")
    normalize: bool = Field(True, description="Rewrite the script the way the model was trained to read it.")
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_seconds: float | None = Field(None, description="Of all audio; cut there.")
    chunk_frames: int | None = Field(None, description="Frames of 80 ms that are sent at a time, at most.")
    split: bool | None = Field(
        None, description="Speak the script in parts; by default only what does not fit one session."
    )
    split_seconds: float | None = Field(None, description="Length of a part, about; implies `split`.")
