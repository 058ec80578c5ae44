"""One clip: from a file to the waveform that the codec encodes, as the server prepares a reference.

    up to 60 s, a reference's limits    the server's own functions, so the codes are the server's
    longer, targets only                `long_clips`, in pieces

Stands alone, without torch or transformers: decoding processes import it.
"""

import hashlib
from pathlib import Path

import numpy as np

from sglang_moss.audio.loading import ReferenceLimits, load_audio
from sglang_moss.audio.preparation import prepare_samples
from sglang_moss.errors import BadReference, LongReference

from .errors import BadRecord
from .long_clips import FULL_SCALE, write_waveform
from .messages import ClipTask, DecodedClip

LIMITS = ReferenceLimits()
_READ_BYTES = 2**22


def decode_clip(task: ClipTask, sample_rate: int, frame_samples: int) -> DecodedClip:
    """Read, resample and level a clip, and write its waveform.

    Raises:
        BadRecord: it cannot be read, is silent, shorter than a frame, or longer than may be.
        OSError: the waveform cannot be written.
    """
    if not task.path.is_file():
        raise BadRecord(f"{task.path}: there is no such file")
    try:
        data, sha256 = _read(task.path)
    except OSError as error:
        raise BadRecord(f"{task.path}: {error.strerror}") from None
    try:
        n_samples, clipped = _prepare(task, data, sample_rate, frame_samples)
    except BadReference as error:
        raise BadRecord(f"{task.path}: {error.problem}") from None
    n_frames = n_samples // frame_samples
    if n_samples > task.max_samples:
        raise BadRecord(f"{task.path}: {_too_long(task, sample_rate)}")
    return DecodedClip(task.waveform, n_frames, sha256, clipped)


def _prepare(task: ClipTask, data: bytes | None, sample_rate: int, frame_samples: int) -> tuple[int, float]:
    """Samples written, and the share of clipped ones."""
    if data is not None:
        try:
            samples, rate = load_audio(data, LIMITS, 0)
        except LongReference:
            if task.is_reference:
                raise
        else:
            waveform = prepare_samples(samples, rate, sample_rate, 0, least_samples=frame_samples)
            waveform.tofile(task.waveform)
            return len(waveform), float(np.mean(np.abs(samples) >= FULL_SCALE))
    elif task.is_reference:
        n_bytes = task.path.stat().st_size
        raise BadReference.at(0, f"a clip has at most {LIMITS.max_bytes} bytes, got {n_bytes}")
    with task.waveform.open("w+b") as file:
        try:
            clip = write_waveform(task.path, sample_rate, LIMITS, task.max_samples, file)
        except LongReference:
            raise BadRecord(f"{task.path}: {_too_long(task, sample_rate)}") from None
    return clip.n_samples, clip.clipped_share


def _too_long(task: ClipTask, sample_rate: int) -> str:
    seconds = task.max_samples / sample_rate
    return f"the clip lasts more than the {seconds:.2f} s that --max-rows leaves; cut it at a pause, with its text"


def _read(path: Path) -> tuple[bytes | None, bytes]:
    """A file's bytes, None if they are more than a reference may have, and their SHA-256."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        data = file.read(LIMITS.max_bytes + 1)
        sha256.update(data)
        if len(data) <= LIMITS.max_bytes:
            return data, sha256.digest()
        while piece := file.read(_READ_BYTES):
            sha256.update(piece)
    return None, sha256.digest()
