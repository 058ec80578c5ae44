"""What a client asks for, and the `/generate` body that says so.

References are numbered by their place: the first one is the voice of [S1]. When the server continues them, it expects
their transcripts in front of the text; they are put there here.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypedDict

from sglang_moss.request.ordinary_text import transcript_of
from sglang_moss.request.profile import TTS, TTSD
from sglang_moss.request.script import read_script
from sglang_moss.request.text import check_text, join_words, prefix_prompt_texts

FRAME_SECONDS = 0.08  # of the published codec: 1,920 samples at 24 kHz

Mode = Literal["generation", "continuation", "voice_clone", "voice_clone_and_continuation"]
_CONTINUING: tuple[Mode, ...] = ("continuation", "voice_clone_and_continuation")
URL_SCHEMES = ("http://", "https://", "data:")
_NORMALIZE = "${normalize_text}"
VOICE_HEADER = "X-Moss-Voice"  # for a proxy that sends a voice to the server that knows it


@dataclass(frozen=True)
class Reference:
    """One speaker's clip.

    Attributes:
        audio: an audio file (WAV, FLAC, OGG, MP3, M4A, MP4, AAC or WebM) as its bytes or its path, or a URL that the
            server will fetch.
        transcript: what is said in the clip, with or without its speaker tag; the continuing modes need it.
    """

    audio: bytes | str | Path
    transcript: str | None = None


class Settings(TypedDict, total=False):
    """How a text is spoken; None or absent: the server's default."""

    mode: Mode | None  # by default: see `request_body`
    max_seconds: float | None  # the speech is cut there
    exact_length: bool  # speak for exactly `max_seconds`, whether or not the text is at its end
    seed: int | None  # [0, 2**63): the same request with the same seed gives the same speech
    temperature: float | None  # [0, 100], 0: greedy
    top_p: float | None  # (0, 1]
    top_k: int | None  # -1: off
    repetition_penalty: float | None  # (0, 2], 1: off
    text_temperature: float | None  # the text channel's own; by default the values above
    text_top_p: float | None
    text_top_k: int | None
    return_codes: bool  # fill `Speech.codes`
    timestamps: bool  # fill `Speech.turns`, or those of the last chunk; not in a mode that continues references
    timings: bool  # of a stream: the first chunk's `meta` has "timings", when it passed each place on its way
    chunk_frames: int | None  # of a stream: no chunk after the first is longer; those next to it are short in any case
    first_frames: int | None  # of a stream's first chunk: fewer are heard sooner, more last longer
    # Fields of the prompt, as far as the model that is served takes them (`MossClient.profile` says); `text` besides.
    instruction: str | None
    ambient_sound: str | None
    language: str | None  # by its English name
    duration_seconds: float | None  # a length that is wished for
    quality: str | None
    sound_event: str | None
    speaker_tags: bool  # False: of MOSS-TTS, a transcript goes in front of a text without [S1] and is not tagged either


def request_body(text: str, references: Sequence[Reference], settings: Settings) -> dict[str, Any]:
    """The JSON body of one `/generate` request.

    Without a mode, references with transcripts are cloned and continued, and references without any are cloned only.
    In a continuing mode the transcripts are put in front of the text, behind its directives; a continuing mode and no
    transcript at all means that they stand in the text already.

    Raises:
        TypeError: a setting that does not exist.
        ValueError: some references have a transcript and some have none, a transcript with the tag of another speaker,
            no words to speak besides transcripts, or a length below one frame.
        OSError: a reference's file cannot be read.
    """
    unknown = settings.keys() - Settings.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"no such setting: {', '.join(sorted(unknown))}; known are {', '.join(Settings.__annotations__)}"
        )
    transcripts = {i: r.transcript for i, r in enumerate(references, start=1) if r.transcript is not None}
    mode = settings.get("mode")
    if mode is None and references:
        mode = "voice_clone_and_continuation" if transcripts else "voice_clone"
    if mode in _CONTINUING and transcripts:
        if len(transcripts) < len(references):
            missing = min(set(range(1, len(references) + 1)) - transcripts.keys())
            raise ValueError(f"reference {missing} has no transcript: give one for every reference, or none at all")
        text = _behind_directives(text, transcripts, tagged=settings.get("speaker_tags", True))
    body: dict[str, Any] = {"text": text, "sampling_params": _sampling_params(settings, mode)}
    if settings.get("timestamps"):
        body["timestamps"] = True
    if references:
        body["audio_data"] = [audio_entry(reference.audio) for reference in references]
    return body


def _behind_directives(text: str, transcripts: dict[int, str], *, tagged: bool) -> str:
    """The transcripts and the text; directives count only at the very start, so they stay there."""
    profile = TTSD if tagged else TTS
    check_text(read_script(text, profile).text, frozenset())  # alone: behind a transcript there are always words
    normalize = _NORMALIZE if text.startswith(_NORMALIZE) else ""  # left to the server: it works on all of the text
    text = text.removeprefix(normalize)
    script = read_script(text, profile).text or ""
    words = {
        k: transcript_of(transcript, k, f"reference {k}", keep_numbers=not normalize)
        for k, transcript in transcripts.items()
    }
    spoken = prefix_prompt_texts(script, words) if tagged else join_words(*words.values(), script)
    return normalize + text.removesuffix(script) + spoken


def _sampling_params(settings: Settings, mode: Mode | None) -> dict[str, Any]:
    custom = {
        "mode": mode,
        "text_temperature": settings.get("text_temperature"),
        "text_top_p": settings.get("text_top_p"),
        "text_top_k": settings.get("text_top_k"),
        "return_codes": settings.get("return_codes") or None,
        "timings": settings.get("timings") or None,
        "chunk_frames": settings.get("chunk_frames"),
        "first_frames": settings.get("first_frames"),
        "instruction": settings.get("instruction"),
        "ambient_sound": settings.get("ambient_sound"),
        "language": settings.get("language"),
        "tokens": _tokens_in(settings.get("duration_seconds")),
        "quality": settings.get("quality"),
        "sound_event": settings.get("sound_event"),
    }
    params = {
        "max_new_tokens": _frames_in(settings.get("max_seconds")),
        "ignore_eos": settings.get("exact_length") or None,
        "sampling_seed": settings.get("seed"),
        "temperature": settings.get("temperature"),
        "top_p": settings.get("top_p"),
        "top_k": settings.get("top_k"),
        "repetition_penalty": settings.get("repetition_penalty"),
        "custom_params": _given(custom) or None,
    }
    return _given(params)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _frames_in(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not math.isfinite(seconds) or seconds < FRAME_SECONDS:
        raise ValueError(f"max_seconds must be a number of at least {FRAME_SECONDS}, one frame, got {seconds}")
    return _whole_frames(seconds)


def _tokens_in(seconds: float | None) -> int | None:
    """Frames of a length that is wished for, as the models' makers count them."""
    if seconds is None:
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(f"duration_seconds must be a number above 0, got {seconds}")
    return max(1, _whole_frames(seconds))


def _whole_frames(seconds: float) -> int:
    return math.floor(seconds / FRAME_SECONDS + 1e-6)  # 0.56 / 0.08 is a little off 7


def voice_of(body: dict[str, Any]) -> str | None:
    """What stands for the first speaker's voice in `VOICE_HEADER`; None where a body of either API names none.

    A digest: it holds no sound, and no name that a proxy's log would keep.
    """
    match body:
        case {"audio_data": [str(voice), *_]} | {"references": [{"audio": str(voice)}, *_]}:
            pass
        case {"voices": {**names}} if names:
            voice = str(min(names.items())[1])
        case _:
            return None
    return blake2b(voice.encode(), digest_size=16).hexdigest()


def audio_entry(audio: bytes | str | Path) -> str:
    """A clip as it travels in a body: its URL, or base64.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(audio, str) and audio.lower().startswith(URL_SCHEMES):
        return audio
    data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    return base64.b64encode(data).decode("ascii")
