"""The server's answer, as a client sees it."""

import base64
import io
import wave
from dataclasses import dataclass, field
from typing import Any

from .errors import UnusableAnswer


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
        codes: [frames][n_vq], if they were asked for.
    """

    wav: bytes = field(repr=False)
    sample_rate: int
    seconds: float
    frames: int
    finish_reason: str
    meta: dict[str, Any] = field(repr=False)
    codes: list[list[int]] | None = field(repr=False)

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
                raise UnusableAnswer("the answer has no speech in it: does this server serve MOSS-TTSD?")
        try:
            wav = base64.b64decode(text, validate=True)
            with wave.open(io.BytesIO(wav)) as file:
                sample_rate, n_samples = file.getframerate(), file.getnframes()
        except (ValueError, EOFError, wave.Error) as error:  # binascii.Error is a ValueError
            raise UnusableAnswer(
                f"the answer's text is no base64 WAV ({error}): does this server serve MOSS-TTSD?"
            ) from error
        return cls(
            wav=wav,
            sample_rate=sample_rate,
            seconds=n_samples / sample_rate,
            frames=frames,
            finish_reason=reason,
            meta=meta,
            codes=meta.get("audio_codes"),
        )
