"""The server's answers, as a client sees them: a whole one, or a chunk of one that streams."""

import base64
import io
import json
import wave
from dataclasses import dataclass, field
from typing import Any

from .errors import ServerRefused, UnusableAnswer
from .turns import SpokenTurn, turns_in

_ASK = "does this server serve MOSS-TTSD?"
_BAD_REQUEST, _INTERNAL_ERROR = 400, 500
_BYTES_PER_SAMPLE = 2


@dataclass(frozen=True)
class Speech:
    """What the server spoke.

    Attributes:
        wav: a WAV file, 16-bit mono; the references are not in it.
        sample_rate: Hz.
        seconds: length of `wav`.
        frames: codec frames in it.
        finish_reason: "stop": it ended by itself; "length": it was cut, at `max_seconds` or where the context was full.
        meta: `meta_info` of the answer: "sampling_seed", "prompt_tokens", "reference_cached" and what SGLang adds.
        codes: `[frames][n_vq]`, if they were asked for.
        turns: when each turn is heard, if that was asked for.
    """

    wav: bytes = field(repr=False)
    sample_rate: int
    seconds: float
    frames: int
    finish_reason: str
    meta: dict[str, Any] = field(repr=False)
    codes: list[list[int]] | None = field(repr=False)
    turns: list[SpokenTurn] | None = field(default=None, repr=False)

    @property
    def pcm(self) -> bytes:
        """The samples of `wav`, 16-bit little-endian mono."""
        return _read_wav(self.wav)[2]

    @classmethod
    def from_body(cls, body: bytes) -> "Speech":
        """Read what `/generate` answers with.

        Raises:
            UnusableAnswer: it is not JSON, a field is missing, or `text` is not a base64 WAV.
        """
        return cls.from_answer(json_of(body))

    @classmethod
    def from_answer(cls, answer: Any) -> "Speech":
        """Read the JSON that `/generate` answers with.

        Raises:
            UnusableAnswer: a field is missing, or `text` is not a base64 WAV.
        """
        match answer:
            case {
                "text": str(text),
                "meta_info": {"audio_frames": int(frames), "finish_reason": {"type": str(reason)}},
            }:
                meta = answer["meta_info"]
            case _:
                raise UnusableAnswer(f"the answer has no speech in it: {_ASK}")
        wav = _base64(text)
        sample_rate, n_samples, _pcm = _read_wav(wav)
        return cls(
            wav=wav,
            sample_rate=sample_rate,
            seconds=n_samples / sample_rate,
            frames=frames,
            finish_reason=reason,
            meta=meta,
            codes=meta.get("audio_codes"),
            turns=turns_in(meta),
        )


@dataclass(frozen=True)
class SpeechChunk:
    """The next stretch of speech that streams.

    Attributes:
        pcm: its samples, 16-bit little-endian mono; chunk after chunk they are the whole speech.
        sample_rate: Hz.
        seconds: length of `pcm`.
        finish_reason: None before the last chunk, which may be empty; then as `Speech.finish_reason`.
        meta: `meta_info` of the event; that of the last chunk is what a whole answer has. Empty for `/v1/audio/speech`.
        turns: of the last chunk: when each turn is heard, if that was asked for.
    """

    pcm: bytes = field(repr=False)
    sample_rate: int
    seconds: float
    finish_reason: str | None
    meta: dict[str, Any] = field(repr=False)
    turns: list[SpokenTurn] | None = field(default=None, repr=False)

    @classmethod
    def from_event(cls, data: bytes) -> "SpeechChunk":
        """Read the data of one event.

        Raises:
            ServerRefused: the event says that the request failed.
            UnusableAnswer: it is not JSON, a field is missing, or `text` is not a base64 WAV.
        """
        match json_of(data):
            case {"error": {"message": str(message), **error}}:
                raise _refused(message, error)
            case {"meta_info": {"finish_reason": {"type": "abort", **abort}}}:
                raise _refused(str(abort.get("message") or "aborted"), abort)
            case {"text": str(text), "meta_info": {"audio_seconds": float() | int(), **_rest} as meta}:
                reason = meta.get("finish_reason")
            case _:
                raise UnusableAnswer(f"the event has no speech in it: {_ASK}")
        # The last event has no audio where a chunk ended with the speech.
        sample_rate, n_samples, pcm = _read_wav(_base64(text)) if text else (meta.get("sample_rate", 0), 0, b"")
        return cls(
            pcm=pcm,
            sample_rate=sample_rate,
            seconds=n_samples / sample_rate if n_samples else 0.0,
            finish_reason=reason["type"] if isinstance(reason, dict) else None,
            meta=meta,
            turns=turns_in(meta),
        )

    @classmethod
    def from_speech_event(cls, data: bytes, sample_rate: int) -> "SpeechChunk | None":
        """Read the data of one event of `/v1/audio/speech`, in format `pcm`; None: the speech is whole.

        Raises:
            ServerRefused: the event says that the request failed.
            UnusableAnswer: it is not JSON, or no such event.
        """
        match event := json_of(data):
            case {"error": {"message": str(message), **error}}:
                raise _refused(message, error)
            case {"type": "speech.audio.delta", "audio": str(audio)}:
                pcm = _base64(audio)
            case {"type": "speech.audio.done", "finish_reason": str(reason)}:
                return cls(b"", sample_rate, 0.0, reason, {}, turns_in(event))
            case {"type": "speech.audio.done"}:  # of a server that does not tell
                return None
            case _:
                raise UnusableAnswer(f"the event has no speech in it: {_ASK}")
        seconds = len(pcm) / _BYTES_PER_SAMPLE / sample_rate
        return cls(pcm=pcm, sample_rate=sample_rate, seconds=seconds, finish_reason=None, meta={})


def _refused(message: str, said: dict[str, Any]) -> ServerRefused:
    """What an event says of a request that failed, whose status has long been sent."""
    code, status = said.get("code"), said.get("status_code")
    if isinstance(code, int):  # of an SGLang that has none of our words
        status, code = code, None
    if not isinstance(status, int):
        status = _BAD_REQUEST if said.get("type") == "invalid_request_error" else _INTERNAL_ERROR
    return ServerRefused(status, message, code=code if isinstance(code, str) else None)


def json_of(body: bytes) -> Any:
    """The JSON of an answer; UnusableAnswer where it is none."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise UnusableAnswer(f"the answer is not JSON ({error}): {_ASK}") from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise UnusableAnswer(f"the answer's audio is no base64 ({error}): {_ASK}") from error


def _read_wav(wav: bytes) -> tuple[int, int, bytes]:
    """Rate in Hz, number of samples, and the samples of a WAV file."""
    try:
        with wave.open(io.BytesIO(wav)) as file:
            return file.getframerate(), file.getnframes(), file.readframes(file.getnframes())
    except (ValueError, EOFError, wave.Error) as error:
        raise UnusableAnswer(f"the answer's text is no base64 WAV ({error}): {_ASK}") from error
