"""How decoded audio leaves: the text that travels from the codec's thread to the HTTP process, and its meaning there.

SGLang joins the texts that a request sends, all of them for a whole answer, those that have queued up for a stream.
So a whole answer is the base64 of its PCM in pieces that may be joined, and its head follows in the last `meta_info`:
nothing is encoded twice, and no thread handles an hour of audio at once. A stream is lines, one a chunk:

    base64 of a WAV of the chunk | space | JSON of what `meta_info` shall say of it | newline

A line without a WAV, in front of the first chunk, has the marks of its way (`request/first_sound.py`).
"""

import json
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pybase64

from sglang_moss.audio.wav import WavBase64, wav_bytes
from sglang_moss.request.speech import SpeechRequest

_PIECE_CHARS = 1_000_000  # of a whole answer: pickling one takes less than a millisecond
_HEAD = "wav_head"


class Delivery(Protocol):
    """What a stream does with its audio."""

    n_frames: int  # taken so far

    @property
    def n_wanted(self) -> int:
        """Frames after which there is something to send."""
        ...

    def fitting(self, n_frames: int) -> int:
        """The largest part of `n_frames` after which nothing is kept back; `n_frames` where something always is."""
        ...

    def add(self, pcm: np.ndarray, codes: np.ndarray) -> str:
        """Take [T * frame_samples] int16 and [T, n_vq]; returns what shall be sent now, mostly nothing."""
        ...

    def end(self) -> tuple[str, dict[str, Any]]:
        """The last text, and what the last message shall say besides."""
        ...


class WholeDelivery:
    """A whole answer, in pieces of about a megabyte."""

    n_wanted = 32  # frames worth a step of the codec

    def __init__(self, request: SpeechRequest, sample_rate: int) -> None:
        self._facts = _facts(request, sample_rate)
        self._sample_rate = sample_rate
        self._wav = WavBase64(sample_rate)
        self._codes: list[np.ndarray] | None = [] if request.options.return_codes else None
        self.n_frames = 0
        self._n_samples = 0

    def fitting(self, n_frames: int) -> int:
        return n_frames

    def add(self, pcm: np.ndarray, codes: np.ndarray) -> str:
        self._wav.append(pcm.tobytes())
        self.n_frames += len(codes)
        self._n_samples += len(pcm)
        if self._codes is not None:
            self._codes.append(codes.astype(np.int16))
        return self._wav.take() if self._wav.n_chars >= _PIECE_CHARS else ""

    def end(self) -> tuple[str, dict[str, Any]]:
        head, text = self._wav.close()
        meta = _totals(self.n_frames, self._n_samples / self._sample_rate) | self._facts | {_HEAD: head}
        if self._codes is not None:
            meta["audio_codes"] = np.concatenate(self._codes)
        return text, meta


class ChunkDelivery:
    """A stream: a chunk of the request's `first_frames`, then each as long as all before, up to its `chunk_frames`."""

    def __init__(self, request: SpeechRequest, sample_rate: int, frame_samples: int) -> None:
        self._facts = _facts(request, sample_rate)
        self._sample_rate = sample_rate
        self._frame_samples = frame_samples
        self._limit = request.options.chunk_frames
        self._with_codes = request.options.return_codes
        self._chunk_frames = request.options.first_frames  # of the chunk being filled
        self._pcm: list[bytes] = []
        self._codes: list[np.ndarray] = []
        self._n_kept = 0  # frames of the chunk being filled
        self.n_frames = 0

    @property
    def n_wanted(self) -> int:
        return self._chunk_frames - self._n_kept

    def fitting(self, n_frames: int) -> int:
        fitting = self.n_wanted
        if fitting > n_frames:
            return n_frames
        n_sent = self.n_frames + self._chunk_frames
        while fitting + (size := min(n_sent, self._limit)) <= n_frames:
            fitting += size
            n_sent += size
        return fitting

    def add(self, pcm: np.ndarray, codes: np.ndarray) -> str:
        lines = []
        while len(codes):
            n = min(self.n_wanted, len(codes))
            self._pcm.append(pcm[: n * self._frame_samples].tobytes())
            self._codes.append(codes[:n])
            self._n_kept += n
            pcm, codes = pcm[n * self._frame_samples :], codes[n:]
            if self.n_wanted == 0:
                lines.append(self._line())
                self._chunk_frames = min(self.n_frames, self._limit)
        return "".join(lines)

    def end(self) -> tuple[str, dict[str, Any]]:
        return (self._line() if self._n_kept else ""), {}

    def _line(self) -> str:
        start_seconds = self._seconds(self.n_frames)
        self.n_frames += self._n_kept
        meta = {"chunk_start_seconds": start_seconds} | _totals(self.n_frames, self._seconds(self.n_frames))
        if self._with_codes:
            meta["audio_codes"] = np.concatenate(self._codes).tolist()
        wav = wav_bytes(np.frombuffer(b"".join(self._pcm), np.int16), self._sample_rate)
        self._pcm, self._codes, self._n_kept = [], [], 0
        return f"{pybase64.b64encode(wav).decode()} {json.dumps(meta | self._facts)}\n"

    def _seconds(self, n_frames: int) -> float:
        return n_frames * self._frame_samples / self._sample_rate


def whole_answer(text: str, meta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The base64 WAV and the `meta_info` of a whole answer, from all of its text and its last `meta`."""
    meta = dict(meta)
    if "audio_codes" in meta:
        meta["audio_codes"] = meta["audio_codes"].tolist()
    return meta.pop(_HEAD) + text, meta


def marks_line(marks: dict[str, float]) -> str:
    """What travels in front of a stream's first chunk."""
    return f" {json.dumps(marks)}\n"


def chunks_of(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The base64 WAV and the `meta_info` of every chunk in the joined text of a stream; no WAV: marks."""
    for line in text.splitlines():
        wav, _, meta = line.partition(" ")
        yield wav, json.loads(meta)


def _totals(n_frames: int, seconds: float) -> dict[str, Any]:
    return {"audio_seconds": seconds, "audio_frames": n_frames}


def _facts(request: SpeechRequest, sample_rate: int) -> dict[str, Any]:
    return {
        "sample_rate": sample_rate,
        "reference_cached": request.reference_cached,
        "sampling_seed": request.options.seed,
    }
