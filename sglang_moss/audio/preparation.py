"""Reference clips, from the bytes of a file to the waveform that the codec encodes.

    file -> [L, channels] float64 -> resampled -> mono float32 -> loudness towards -20 dBFS -> codec

The prompt audio of a continuation is the concatenation of the prepared clips, as it is: no second loudness pass.

Source: MOSS-TTSD, served path of `/generate`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import resample

from sglang_moss.audio.loading import ReferenceLimits, load_audio
from sglang_moss.errors import BadReference

_TARGET_DBFS = -20.0
_MAX_GAIN_DB = 3.0
_SILENCE = 1e-9  # keeps the logarithm of silence finite
# Longer than 60 s at 48 kHz, so only at a studio's rates: silence is appended to reach a length that an FFT likes, and
# leaves with the last samples. A prime number of 6 million samples would take 2.6 s and 870 MB.
_LONG = 60 * 48_000


def prepare_reference(
    data: bytes, sample_rate: int, limits: ReferenceLimits, position: int, least_samples: int = 1
) -> np.ndarray:
    """The waveform of one reference.

    Args:
        data: an audio file, see `load_audio`.
        sample_rate: the codec's, in Hz.
        limits: what is refused.
        position: of the clip among the references, from 0; the errors name it.
        least_samples: at `sample_rate`: a frame, since less has no codes.
    Returns:
        [L] float32 at `sample_rate`, L >= `least_samples`.
    Raises:
        BadReference: see `load_audio`; or too short.
    """
    samples, rate = load_audio(data, limits, position)
    return prepare_samples(samples, rate, sample_rate, position, least_samples)


def prepare_samples(
    samples: np.ndarray, rate: int, sample_rate: int, position: int, least_samples: int = 1
) -> np.ndarray:
    """The waveform of [L, channels] float64 samples at `rate` Hz; see `prepare_reference`.

    Raises:
        BadReference: too short.
    """
    if len(samples) * sample_rate < rate:
        raise BadReference.at(
            position, f"{len(samples)} samples at {rate} Hz are less than one at {sample_rate} Hz", "clip_too_short"
        )
    waveform = to_mono(samples, rate, sample_rate)
    if len(waveform) < least_samples:
        got, least = len(waveform) / sample_rate, least_samples / sample_rate
        raise BadReference.at(
            position,
            f"the clip lasts {got:.3f} s, less than one frame of {least:g} s; send more of it",
            "clip_too_short",
        )
    return normalize_loudness(waveform)


def concatenate_references(waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """The prompt audio: [L] float32 of the prepared references, one after the other."""
    return np.concatenate(waveforms)


def to_mono(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample by FFT to the next lower number of samples, in float64, then average the channels.

    Args:
        samples: [L, channels] float64 at `rate` Hz.
    Returns:
        [int(L * sample_rate / rate)] float32.
    """
    if rate != sample_rate:
        # Channel by channel: the same numbers, in a fraction of the memory.
        samples = np.stack([_resampled(channel, rate, sample_rate) for channel in samples.T], axis=1)
    return samples.mean(axis=1).astype(np.float32)


def _resampled(channel: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """[L] to [int(L * sample_rate / rate)]."""
    n_samples = len(channel) * sample_rate // rate
    n_padded: Any = next_fast_len(len(channel)) if len(channel) > _LONG else len(channel)
    padded = np.pad(channel, (0, n_padded - len(channel)))
    return np.asarray(resample(padded, n_padded * sample_rate // rate))[:n_samples]


def normalize_loudness(waveform: np.ndarray) -> np.ndarray:
    """Move the level of [L] float32 samples towards -20 dBFS (rms), by at most 3 dB; float32 arithmetic throughout."""
    return waveform * loudness_gain(np.sqrt(np.mean(waveform**2)))


def loudness_gain(rms: np.float32) -> np.float32:
    """The factor for samples of this level."""
    gain_db = np.clip(_TARGET_DBFS - 20 * np.log10(rms + _SILENCE), -_MAX_GAIN_DB, _MAX_GAIN_DB)
    return 10 ** (gain_db / 20)
