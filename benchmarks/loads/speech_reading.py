"""What is in an answer: its lengths, and whether it holds sound. Runs in the benchmark's worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...clients import Speech, SpeechChunk, UnusableAnswer
from .workloads import FRAMES_PER_SECOND

_FULL_SCALE = 32_767
_LEAST_RMS = 1e-3  # full scale is 1
_WINDOW_S = 2.0  # longer than a pause between sentences
_MOST_CLIPPED = 0.01  # share of the samples


@dataclass(frozen=True)
class SpeechReading:
    """One answer, read.

    Attributes:
        part_seconds: of speech in each part of the answer: one, or the chunks of a stream.
        problem: why the sound is not what was asked for; None: it is.
        is_silent: some 2 s of it hold no sound.
    """

    part_seconds: tuple[float, ...]
    frames: int
    problem: str | None
    is_silent: bool
    clipped_share: float
    prompt_tokens: int | None
    cached_tokens: int | None
    reference_cached: bool | None

    @property
    def seconds(self) -> float:
        return sum(self.part_seconds)


@dataclass(frozen=True)
class SpeechReader:
    """Reads the parts of one answer.

    Attributes:
        stream: the parts are events; else there is one, the body.
        expected_frames: by the request's number, exactly as many are right; None: any number but none.
        allow_silence: only count silent answers, as random weights of one size for all layers make nothing else.
    """

    stream: bool
    expected_frames: Sequence[int] | None
    allow_silence: bool = False

    def __call__(self, number: int, parts: list[bytes]) -> SpeechReading:
        """Read and check.

        Raises:
            ClientError: the answer says that the request failed, or is no speech.
        """
        if self.stream:
            chunks = [SpeechChunk.from_event(part) for part in parts]
            if not chunks or chunks[-1].finish_reason is None:
                raise UnusableAnswer("the stream ended without its last chunk")
            rate, meta = chunks[0].sample_rate, chunks[-1].meta
            pcms = [chunk.pcm for chunk in chunks]
        else:
            speech = Speech.from_body(b"".join(parts))
            rate, meta, pcms = speech.sample_rate, speech.meta, [speech.pcm]
        samples = np.frombuffer(b"".join(pcms), np.int16)
        is_silent = silent(samples, rate)
        clipped = clipped_share(samples)
        frames = _whole(meta.get("audio_frames"))
        return SpeechReading(
            part_seconds=tuple(len(pcm) / 2 / rate for pcm in pcms),
            frames=frames or 0,
            problem=self._problem(number, len(samples) / rate, frames, is_silent, clipped),
            is_silent=is_silent,
            clipped_share=clipped,
            prompt_tokens=_whole(meta.get("prompt_tokens")),
            cached_tokens=_whole(meta.get("cached_tokens")),
            reference_cached=meta.get("reference_cached"),
        )

    def _problem(self, number: int, seconds: float, frames: int | None, is_silent: bool, clipped: float) -> str | None:
        expected = self.expected_frames[number] if self.expected_frames is not None else frames
        if not frames or not expected or abs(seconds * FRAMES_PER_SECOND - expected) > 1e-6 or frames != expected:
            return "wrong length"
        if is_silent and not self.allow_silence:
            return "silent"
        return "clipped" if clipped > _MOST_CLIPPED else None


def silent(samples: np.ndarray, rate: int) -> bool:
    """Whether some stretch of 2 s of [L] int16 samples, or all of a shorter clip, holds no sound."""
    window = max(1, min(len(samples), round(_WINDOW_S * rate)))
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    ends = [samples[-window:][None]] if len(samples) % window else []
    rms = [np.sqrt(np.mean((part / _FULL_SCALE) ** 2, axis=1)) for part in [whole, *ends]]
    return not len(samples) or bool(min(r.min() for r in rms) < _LEAST_RMS)


def clipped_share(samples: np.ndarray) -> float:
    """The share of [L] int16 samples at full scale."""
    return float(np.mean(np.abs(samples.astype(np.int32)) >= _FULL_SCALE)) if len(samples) else 0.0


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
