"""Reference clips: the bytes of an audio file to samples, within limits.

The bytes come from strangers. A few kilobytes of FLAC or OGG may unfold to hours, a header may lie about that, and a
float file may hold NaN; none of it may reach the codec, or fill the memory on its way.
"""

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from sglang_moss.errors import BadReference

_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")  # libsndfile's names; it knows more, nobody needs them here
_UNKNOWN_LENGTH = 2**62  # libsndfile reports 2**63 - 1 for a stream whose writer did not know
_SEND = "send WAV, FLAC, OGG or MP3"


@dataclass(frozen=True)
class ReferenceLimits:
    """What one reference may be."""

    max_bytes: int = 25_000_000
    max_seconds: float = 60.0
    max_channels: int = 8
    min_rate: int = 4_000  # Hz
    max_rate: int = 384_000  # Hz
    max_values: int = 6_000_000  # samples over all channels, as in 60 s of stereo at 48 kHz; resampling a prime number
    # of them takes seconds and 200 bytes for each
    max_peak: float = 10.0  # full scale is 1; far beyond it are integers stored as floats


def load_audio(data: bytes, limits: ReferenceLimits, position: int) -> tuple[np.ndarray, int]:
    """Decode one clip.

    Args:
        data: an audio file: WAV, FLAC, OGG or MP3.
        limits: what is refused.
        position: of the clip among the references, from 0; the errors name it.
    Returns:
        [L, channels] float64 samples with full scale 1, L >= 1, and the sample rate in Hz.
    Raises:
        BadReference: empty, unreadable, beyond a limit, or samples that are not numbers.
    """
    if not data:
        raise BadReference.at(position, f"expected an audio file, got no bytes; {_SEND}")
    if len(data) > limits.max_bytes:
        raise BadReference.at(position, f"a clip has at most {limits.max_bytes} bytes, got {len(data)}")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, limits, position)
            samples, rate = _decode(file, position), file.samplerate
    except soundfile.SoundFileError:
        raise BadReference.at(position, f"these {len(data)} bytes cannot be read as audio; {_SEND}") from None
    _check_samples(samples, limits, position)
    return samples, rate


def _check_header(file: soundfile.SoundFile, limits: ReferenceLimits, position: int) -> None:
    """Refuse what the header itself admits."""
    if file.format not in _FORMATS:
        raise BadReference.at(position, f"the format {file.format} is not supported; {_SEND}")
    if not 1 <= file.channels <= limits.max_channels:
        raise BadReference.at(position, f"a clip has 1 to {limits.max_channels} channels, got {file.channels}")
    if not limits.min_rate <= file.samplerate <= limits.max_rate:
        allowed = f"{limits.min_rate} to {limits.max_rate} Hz"
        raise BadReference.at(position, f"sample rates go from {allowed}, got {file.samplerate} Hz")
    if file.frames >= _UNKNOWN_LENGTH:
        raise BadReference.at(position, "the file does not say how long it is; write it to disk, not to a pipe")
    max_samples = min(int(limits.max_seconds * file.samplerate), limits.max_values // file.channels)
    if file.frames > max_samples:
        raise BadReference.at(
            position,
            f"a clip lasts at most {limits.max_seconds:g} s and has at most {limits.max_values} samples over all "
            f"channels, got {file.frames / file.samplerate:.2f} s in {file.channels} channels; cut it",
        )


def _decode(file: soundfile.SoundFile, position: int) -> np.ndarray:
    """[L, channels] float64: at most as many samples as the header announced, whatever the data would unfold to."""
    # One read, after a seek to the start, is what `soundfile.read` does: for an MP3 a seek moves the roundings.
    file.seek(0)
    samples = file.read(file.frames, dtype="float64", always_2d=True)
    if not len(samples):
        raise BadReference.at(position, "the file holds no sample")
    return samples


def _check_samples(samples: np.ndarray, limits: ReferenceLimits, position: int) -> None:
    if not np.isfinite(samples).all():
        raise BadReference.at(position, "the file holds NaN or infinite samples")
    peak = np.abs(samples).max()
    if peak > limits.max_peak:
        problem = f"full scale is 1 and peaks beyond {limits.max_peak:g} are refused, got {peak:.3g}; scale the samples"
        raise BadReference.at(position, problem)
