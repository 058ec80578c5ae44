"""16-bit mono PCM to the bytes of an audio file, as the samples come; nothing is ever rewritten.

WAV and raw PCM are written here, everything else by FFmpeg's libraries. Since a file's end is not known at its start,
a WAV says the largest length there is (as OpenAI's does), and FLAC says none.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import av
import numpy as np

from sglang_moss.audio.wav import wav_header

from .fields import AudioFormat

_PCM16 = np.dtype("<i2")


class Encoder(Protocol):
    """Writes one file; `encode` any number of times, then `finish`."""

    def encode(self, pcm: np.ndarray) -> bytes:
        """What [L] int16 samples add to the file; may be empty."""
        ...

    def finish(self) -> bytes:
        """The rest of the file."""
        ...


@dataclass(frozen=True)
class _Format:
    media_type: str
    container: str = ""  # FFmpeg's name; none: written here
    codec: str = ""
    bit_rate: int | None = None
    options: tuple[tuple[str, str], ...] = ()  # of the container


# mp3: neither a tag nor a header that would want the length. ogg: pages of 0.1 s, else a second waits for its page.
_FORMATS: dict[AudioFormat, _Format] = {
    "mp3": _Format("audio/mpeg", "mp3", "libmp3lame", 96_000, (("write_xing", "0"), ("id3v2_version", "0"))),
    "opus": _Format("audio/ogg", "ogg", "libopus", 64_000, (("page_duration", "100000"),)),
    "aac": _Format("audio/aac", "adts", "aac", 96_000),
    "flac": _Format("audio/flac", "flac", "flac"),
    "wav": _Format("audio/wav"),
    "pcm": _Format("audio/pcm"),
}


def media_type(audio_format: AudioFormat) -> str:
    return _FORMATS[audio_format].media_type


def make_encoder(audio_format: AudioFormat, sample_rate: int) -> Encoder:
    """An encoder of [L] int16 mono samples at `sample_rate` Hz."""
    found = _FORMATS[audio_format]
    if found.container:
        return _LibavEncoder(found, sample_rate)
    return _RawEncoder(_endless_wav_header(sample_rate) if audio_format == "wav" else b"")


class _RawEncoder:
    """Samples as they are, behind a header."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def encode(self, pcm: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + pcm.astype(_PCM16, copy=False).tobytes()

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header


class _Sink:
    """A file that can only grow, as far as FFmpeg can see."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class _LibavEncoder:
    """One container with one stream. Where a codec does not know the sample rate, the next higher one it knows."""

    def __init__(self, made: _Format, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._n_samples = 0
        self._sink = _Sink()
        sink: Any = self._sink
        self._container = av.open(
            sink, "w", format=made.container, options={"flush_packets": "1", **dict(made.options)}
        )
        rates = sorted(av.Codec(made.codec, "w").audio_rates or [sample_rate])
        rate = next((r for r in rates if r >= sample_rate), rates[-1])
        self._stream: Any = self._container.add_stream(made.codec, rate=rate, layout="mono")
        if made.bit_rate is not None:
            self._stream.bit_rate = made.bit_rate

    def encode(self, pcm: np.ndarray) -> bytes:
        if not len(pcm):
            return b""
        samples = np.ascontiguousarray(pcm[None], np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._n_samples
        self._n_samples += len(pcm)
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()


def _endless_wav_header(sample_rate: int) -> bytes:
    """The 44 bytes in front of 16-bit mono PCM whose length nobody knows yet."""
    header = wav_header(0, sample_rate)
    unknown = b"\xff\xff\xff\xff"
    return header[:4] + unknown + header[8:-4] + unknown
