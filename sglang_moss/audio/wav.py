"""16-bit PCM as bytes: in a WAV, and as base64 of a WAV that is still growing.

    byte     0                             44    45                    n      a WAV: 44 bytes of header, then PCM
    base64   |<-- 60 characters, 45 bytes -->|<-- 4 characters for every 3 bytes -->|

The header holds the number of samples, so it is known last; but base64 goes in groups of 3 bytes and 45 is one of
their borders. All PCM after its first byte is therefore encoded as it comes.
"""

import struct

import numpy as np
import pybase64

from sglang_moss.errors import MossError

_BYTES_PER_SAMPLE = 2
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def wav_bytes(pcm: np.ndarray, sample_rate: int) -> bytes:
    """A WAV file (16-bit PCM, mono) of [L] int16 samples."""
    data = pcm.astype("<i2").tobytes()
    return wav_header(len(data), sample_rate) + data


def pcm_of_base64(wav_base64: str) -> np.ndarray:
    """[L] int16 samples of a WAV file that `wav_bytes` or `WavBase64` made, in base64."""
    return np.frombuffer(pybase64.b64decode(wav_base64), "<i2", offset=_HEADER.size).astype(np.int16)


def wav_header(n_bytes: int, sample_rate: int) -> bytes:
    """The 44 bytes in front of `n_bytes` of 16-bit mono PCM.

    Raises:
        MossError: more PCM than a WAV can count, 4 GiB (a day of sound at 24 kHz).
    """
    riff_bytes = _HEADER.size - 8 + n_bytes
    if riff_bytes > 0xFFFFFFFF:
        raise MossError(f"a WAV holds less than 4 GiB of sound, got {n_bytes} bytes")
    pcm_format, n_channels = 1, 1
    fmt = (16, pcm_format, n_channels, sample_rate, sample_rate * _BYTES_PER_SAMPLE, _BYTES_PER_SAMPLE, 16)
    return _HEADER.pack(b"RIFF", riff_bytes, b"WAVE", b"fmt ", *fmt, b"data", n_bytes)


class WavBase64:
    """Base64 of a WAV whose PCM arrives, and whose text leaves, piece by piece; keeps what has not left."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._n_bytes = 0
        self._first = b""  # the first byte of PCM: it shares its group with the end of the header
        self._rest = b""  # 0 to 2 bytes that wait for their group to fill
        self._groups: list[str] = []
        self.n_chars = 0  # that `take` would return

    def append(self, pcm: bytes) -> None:
        """Add 16-bit little-endian mono PCM; a sample may be cut between two pieces."""
        self._n_bytes += len(pcm)
        if not self._first:
            self._first, pcm = pcm[:1], pcm[1:]
        pending = self._rest + pcm
        n_whole = len(pending) // 3 * 3
        self._groups.append(pybase64.b64encode(memoryview(pending)[:n_whole]).decode())
        self.n_chars += len(self._groups[-1])
        self._rest = pending[n_whole:]

    def take(self) -> str:
        """Base64 of what was added since the last call, but for 0 to 2 bytes at its end; the file's follows `head`."""
        text = "".join(self._groups)
        self._groups, self.n_chars = [], 0
        return text

    def close(self) -> tuple[str, str]:
        """The head of everything added so far, 60 characters, and what follows all that was taken.

        Raises:
            MossError: the PCM ends in half a sample.
        """
        if self._n_bytes % _BYTES_PER_SAMPLE:
            raise MossError(f"16-bit PCM has an even number of bytes, got {self._n_bytes}")
        head = wav_header(self._n_bytes, self._sample_rate) + self._first
        return pybase64.b64encode(head).decode(), self.take() + pybase64.b64encode(self._rest).decode()
