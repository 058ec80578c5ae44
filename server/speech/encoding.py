"""16-bit mono PCM to the bytes of an audio file, as the samples come; nothing is ever rewritten.

WAV and raw PCM are written here, everything else by FFmpeg's libraries. Since a growing file's end is not known at its
start, a WAV says the largest length there is (as OpenAI's does), and FLAC says none. A whole file says what is true.
"""

import io
from typing import Protocol

import numpy as np

from sglang_moss.audio.formats import FILE_FORMATS, FileEncoder, FileFormat
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


_MEDIA_TYPES: dict[AudioFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def media_type(audio_format: AudioFormat) -> str:
    return _MEDIA_TYPES[audio_format]


def make_encoder(audio_format: AudioFormat, sample_rate: int, *, growing: bool = True) -> Encoder:
    """An encoder of [L] int16 mono samples at `sample_rate` Hz.

    Args:
        growing: bytes leave as samples come; else all of them at the end, in a file that knows its own length.
    """
    if not growing:
        return _WholeWav(sample_rate) if audio_format == "wav" else _WholeFile(audio_format, sample_rate)
    match audio_format:
        case "pcm":
            return _RawEncoder(b"")
        case "wav":
            return _RawEncoder(_endless_wav_header(sample_rate))
    return _GrowingEncoder(FILE_FORMATS[audio_format], sample_rate)


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


class _WholeWav:
    """Samples that are kept until their number is known."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._samples: list[bytes] = []

    def encode(self, pcm: np.ndarray) -> bytes:
        self._samples.append(pcm.astype(_PCM16, copy=False).tobytes())
        return b""

    def finish(self) -> bytes:
        n_bytes = sum(map(len, self._samples))
        return b"".join([wav_header(n_bytes, self._sample_rate), *self._samples])


class _WholeFile:
    """A file that is kept until it has been finished, which writes its length into its head."""

    def __init__(self, audio_format: AudioFormat, sample_rate: int) -> None:
        self._kept = io.BytesIO()
        self._file = None
        if audio_format != "pcm":
            self._file = FileEncoder(self._kept, FILE_FORMATS[audio_format], sample_rate, growing=False)

    def encode(self, pcm: np.ndarray) -> bytes:
        if self._file is None:
            self._kept.write(pcm.astype(_PCM16, copy=False).tobytes())
        else:
            self._file.encode(pcm)
        return b""

    def finish(self) -> bytes:
        if self._file is None:
            return self._kept.getvalue()
        self._file.finish()
        return self._kept.getvalue()


class _Sink:
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes, /) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class _GrowingEncoder:
    """A file of FFmpeg's, taken away while it grows."""

    def __init__(self, file_format: FileFormat, sample_rate: int) -> None:
        self._sink = _Sink()
        self._file = FileEncoder(self._sink, file_format, sample_rate, growing=True)

    def encode(self, pcm: np.ndarray) -> bytes:
        self._file.encode(pcm)
        return self._sink.take()

    def finish(self) -> bytes:
        self._file.finish()
        return self._sink.take()


def _endless_wav_header(sample_rate: int) -> bytes:
    """The 44 bytes in front of 16-bit mono PCM whose length nobody knows yet."""
    header = wav_header(0, sample_rate)
    unknown = b"\xff\xff\xff\xff"
    return header[:4] + unknown + header[8:-4] + unknown
