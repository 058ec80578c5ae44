"""Audio files that FFmpeg's libraries write: one table of formats, and one encoder for all of them.

The server's answers and the clients' files are made here, so this stays free of everything that a client does not need.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np


@dataclass(frozen=True)
class FileFormat:
    """How a kind of file is made of speech.

    Attributes:
        container, codec: FFmpeg's names.
        bit_rate: of a lossy codec, bit/s.
        growing: options of the container for a file whose beginning leaves before its end is made.
    """

    container: str
    codec: str
    bit_rate: int | None = None
    growing: tuple[tuple[str, str], ...] = ()


# Each lossy codec has a rate of its own, since left alone LAME takes 32 kbit/s for 24 kHz, which dulls a voice.
# mp3: neither a tag nor a header that would want the length. ogg: pages of 0.1 s, else a second waits for its page.
FILE_FORMATS = {
    "wav": FileFormat("wav", "pcm_s16le"),
    "flac": FileFormat("flac", "flac"),
    "mp3": FileFormat("mp3", "libmp3lame", 96_000, (("write_xing", "0"), ("id3v2_version", "0"))),
    "opus": FileFormat("ogg", "libopus", 64_000, (("page_duration", "100000"),)),
    "aac": FileFormat("adts", "aac", 96_000),
    "m4a": FileFormat("ipod", "aac", 96_000),
}


class Target(Protocol):
    """A file that can only grow, as far as FFmpeg can see."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`, and return its length."""
        ...


class FileEncoder:
    """Writes one file with one stream of mono sound: `encode` any number of times, then `finish`.

    Where the codec does not know the sample rate, the file has the next higher one that it knows.

    Args:
        target: what is written; a path is replaced if it exists.
        file_format: one of `FILE_FORMATS`.
        sample_rate: of the samples, in Hz.
        growing: what is written leaves at once.
    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, target: str | Target, file_format: FileFormat, sample_rate: int, *, growing: bool) -> None:
        self._sample_rate = sample_rate
        self._n_samples = 0
        options = {"flush_packets": "1", **dict(file_format.growing)} if growing else {}
        file: Any = target
        self._container = av.open(file, "w", format=file_format.container, options=options)
        rates = sorted(av.Codec(file_format.codec, "w").audio_rates or [sample_rate])
        rate = next((r for r in rates if r >= sample_rate), rates[-1])
        self._stream: Any = self._container.add_stream(file_format.codec, rate=rate, layout="mono")
        if file_format.bit_rate is not None:
            self._stream.bit_rate = file_format.bit_rate

    def encode(self, pcm: np.ndarray) -> None:
        """Add [L] int16 samples."""
        if not len(pcm):
            return
        samples = np.ascontiguousarray(pcm[None], np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.time_base = Fraction(1, self._sample_rate)
        frame.pts = self._n_samples
        self._n_samples += len(pcm)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the rest of the file, and close it."""
        self._container.mux(self._stream.encode(None))
        self.close()

    def close(self) -> None:
        """Close a file that is left unfinished.

        Raises:
            FFmpegError: it cannot even be closed.
        """
        self._container.close()
