"""Reference clips: the bytes of an audio file to samples, within limits.

The bytes come from strangers. A few kilobytes of FLAC or OGG may unfold to hours, a header may lie about that, and a
float file may hold NaN; none of it may reach the codec, or fill the memory on its way. Nor is a count believed that
makes a clip shorter: its transcript would no longer fit it.

    WAV         libsndfile, once the header tells where the samples end
    OGG         libsndfile, which finds the last page
    FLAC, MP3   FFmpeg, to the end; where libsndfile finds as many samples, its own, which are the reference's
    others      FFmpeg, to the end
"""

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from sglang_moss.audio.containers import TooLong, UnusableContainer, decode_to_end, demuxer_of, whole_wav
from sglang_moss.errors import BadReference, LongReference

_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")  # libsndfile's names; it knows more, nobody needs them here
_TO_THE_END = {"FLAC": "flac", "MP3": "mp3"}  # whose counts are believed or guessed, and FFmpeg's names for them
_SEND = "send WAV, FLAC, OGG, MP3, M4A, MP4, AAC or WebM"
_SILENCE = 1e-3  # -60 dBFS


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
        data: an audio file: WAV, FLAC, OGG, MP3, M4A, MP4, AAC or WebM.
        limits: what is refused.
        position: of the clip among the references, from 0; the errors name it.
    Returns:
        [L, channels] float64 samples with full scale 1, L >= 1, and the sample rate in Hz.
    Raises:
        LongReference: it lasts longer, or has more samples, than the limits say.
        BadReference: empty, unreadable, beyond another limit, silent, or samples that are not numbers.
    """
    if not data:
        raise BadReference.at(position, f"expected an audio file, got no bytes; {_SEND}", "clip_unreadable")
    if len(data) > limits.max_bytes:
        raise BadReference.at(
            position, f"a clip has at most {limits.max_bytes} bytes, got {len(data)}", "clip_too_large"
        )
    try:
        samples, rate = _decode(whole_wav(data), limits, position)
    except TooLong:
        raise LongReference.at(position, f"{_too_long(limits)}, got more; cut it") from None
    except UnusableContainer as error:
        problem = f"this file cannot be read as audio: {error}; {_SEND}"
        raise BadReference.at(position, problem, "clip_unreadable") from None
    except soundfile.SoundFileError:
        problem = f"these {len(data)} bytes cannot be read as audio; {_SEND}"
        raise BadReference.at(position, problem, "clip_unreadable") from None
    check_values(samples, limits, position)
    check_loudness(np.ptp(samples, axis=0), position)
    return samples, rate


def _decode(data: bytes, limits: ReferenceLimits, position: int) -> tuple[np.ndarray, int]:
    """[L, channels] float64 and the rate: all that a file holds, within the limits."""
    if (demuxer := demuxer_of(data)) is not None:
        samples, rate = decode_to_end(data, demuxer, limits.max_seconds, limits.max_values)
        check_shape(samples.shape[1], rate, limits, position)
        return samples, rate
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.format not in _FORMATS:
            raise BadReference.at(position, f"the format {file.format} is not supported; {_SEND}", "clip_unreadable")
        check_shape(file.channels, file.samplerate, limits, position)
        if file.format not in _TO_THE_END:
            return _read(file, limits, position), file.samplerate
        samples, rate = decode_to_end(data, _TO_THE_END[file.format], limits.max_seconds, limits.max_values)
        if (file.frames, file.channels, file.samplerate) == (*samples.shape, rate):
            samples = _read(file, limits, position)
        return samples, rate


def check_shape(n_channels: int, rate: int, limits: ReferenceLimits, position: int) -> None:
    """Refuse numbers of channels and rates beyond the limits; BadReference."""
    if not 1 <= n_channels <= limits.max_channels:
        raise BadReference.at(position, f"a clip has 1 to {limits.max_channels} channels, got {n_channels}")
    if not limits.min_rate <= rate <= limits.max_rate:
        allowed = f"{limits.min_rate} to {limits.max_rate} Hz"
        raise BadReference.at(position, f"sample rates go from {allowed}, got {rate} Hz")


def _read(file: soundfile.SoundFile, limits: ReferenceLimits, position: int) -> np.ndarray:
    """[L, channels] float64, by libsndfile: at most as many samples as the file announces."""
    max_samples = min(int(limits.max_seconds * file.samplerate), limits.max_values // file.channels)
    if file.frames > max_samples:
        got = f"{file.frames / file.samplerate:.2f} s in {file.channels} channels"
        raise LongReference.at(position, f"{_too_long(limits)}, got {got}; cut it")
    # One read, after a seek to the start, is what `soundfile.read` does: for an MP3 a seek moves the roundings.
    file.seek(0)
    samples = file.read(file.frames, dtype="float64", always_2d=True)
    if not len(samples):
        raise BadReference.at(position, "the file holds no sample", "clip_unreadable")
    return samples


def _too_long(limits: ReferenceLimits) -> str:
    return (
        f"a clip lasts at most {limits.max_seconds:g} s and has at most {limits.max_values} samples over all channels"
    )


def check_values(samples: np.ndarray, limits: ReferenceLimits, position: int) -> None:
    """Refuse samples that are not numbers, or far beyond full scale; BadReference."""
    if not np.isfinite(samples).all():
        raise BadReference.at(position, "the file holds NaN or infinite samples")
    peak = np.abs(samples).max()
    if peak > limits.max_peak:
        problem = f"full scale is 1 and peaks beyond {limits.max_peak:g} are refused, got {peak:.3g}; scale the samples"
        raise BadReference.at(position, problem)


def check_loudness(span: np.ndarray, position: int) -> None:
    """Refuse silence, by [channels] distances between the highest and the lowest sample; BadReference."""
    if span.max() < 2 * _SILENCE:
        problem = "the clip is silent, below -60 dBFS; record it again with the microphone on"
        raise BadReference.at(position, problem, "clip_silent")
