"""What the processes of a run tell each other; light, since each of them imports it."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .codec_files import CodecFiles


@dataclass(frozen=True)
class Failure:
    """Why going on would be in vain."""

    sentence: str


@dataclass(frozen=True)
class DecoderSettings:
    """What a decoding process knows of the codec."""

    sampling_rate: int  # Hz
    frame_samples: int


@dataclass(frozen=True)
class ClipTask:
    """A clip to decode.

    Attributes:
        is_reference: as strict as the server with references; else any length up to `max_samples`.
        max_samples: at the codec's rate.
        waveform: the file to write.
    """

    path: Path
    is_reference: bool
    max_samples: int
    waveform: Path


@dataclass(frozen=True)
class DecodedClip:
    """A waveform on disk: mono float32 at the codec's rate, at least `n_frames` frames.

    Attributes:
        sha256: of the clip's file.
        clipped_share: of the file's samples.
    """

    waveform: Path
    n_frames: int
    sha256: bytes
    clipped_share: float


@dataclass(frozen=True)
class EncoderSettings:
    """Which codec, and where.

    Attributes:
        device: torch's name of it.
    """

    codec: CodecFiles
    n_vq: int
    device: str


@dataclass(frozen=True)
class Ready:
    """The codec is loaded."""

    device_name: str


@dataclass(frozen=True)
class EncodeTask:
    """A waveform to encode, see `DecodedClip`."""

    key: Hashable
    waveform: Path
    n_frames: int


@dataclass(frozen=True)
class EncodedClip:
    """What became of a task.

    Attributes:
        codes: [T, n_vq] int16.
        busy_s: how long the encoder has worked since it was ready; the rest of the time it waited.
    """

    key: Hashable
    codes: np.ndarray
    busy_s: float


@dataclass(frozen=True)
class FileStamp:
    """By which a file is known again without reading it."""

    n_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileStamp | None":
        """None: there is no such file."""
        try:
            stat = path.stat()
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return None
        return cls(stat.st_size, stat.st_mtime_ns)
