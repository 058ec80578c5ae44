"""The `/v1/audio/speech` body: a script, who speaks it, and how."""

from collections.abc import Mapping
from typing import Any, TypedDict

from .request import Mode, Reference, audio_entry

Voices = Mapping[int, str | Reference]  # by speaker, 1 for [S1]: the name of a stored voice, or a clip


class SpeechSettings(TypedDict, total=False):
    """How a script is spoken; None or absent: the server's default."""

    instructions: str | None
    ambient_sound: str | None
    quality: str | None
    sound_event: str | None
    language: str | None  # by its English name
    duration_seconds: float | None  # a length that is wished for
    mode: Mode | None
    normalize: bool | None  # rewrite the script the way the model was trained to read it; by default done
    max_seconds: float | None
    seed: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    chunk_frames: int | None
    first_frames: int | None
    timestamps: bool | None  # the last chunk has `turns`
    split: bool | None  # speak in parts; by default only what does not fit one session
    split_seconds: float | None


def speech_body(text: str, voices: Voices, settings: SpeechSettings) -> dict[str, Any]:
    """The JSON body of a request whose answer is a stream of events with PCM.

    Raises:
        TypeError: a setting that does not exist.
        OSError: a clip's file cannot be read.
    """
    unknown = settings.keys() - SpeechSettings.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"no such setting: {', '.join(sorted(unknown))}; known are {', '.join(SpeechSettings.__annotations__)}"
        )
    body: dict[str, Any] = {"input": text, "response_format": "pcm", "stream_format": "sse"}
    names = {f"S{speaker}": voice for speaker, voice in voices.items() if isinstance(voice, str)}
    clips = [_clip(speaker, voice) for speaker, voice in sorted(voices.items()) if isinstance(voice, Reference)]
    body |= {name: value for name, value in (("voices", names), ("references", clips)) if value}
    return body | {name: value for name, value in settings.items() if value is not None}


def _clip(speaker: int, reference: Reference) -> dict[str, Any]:
    clip = {"speaker": speaker, "audio": audio_entry(reference.audio)}
    return clip if reference.transcript is None else clip | {"text": reference.transcript}
