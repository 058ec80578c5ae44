"""Clips longer than a request may send: read, resampled and levelled piece by piece, so that an hour needs no memory.

    file -> pieces [L, channels] float64 -> mono -> resampled in overlapping blocks -> float32 in a file -> its level

A block is resampled by FFT like a whole clip of the server's, with a margin on both sides that fades out, since to an
FFT the end of a block meets its beginning, and is cut off afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from scipy.fft import next_fast_len
from scipy.signal import resample

from sglang_moss.audio.containers import TooLong, UnusableContainer, demuxer_of, sound_pieces
from sglang_moss.audio.loading import ReferenceLimits, check_loudness, check_shape, check_values
from sglang_moss.audio.preparation import loudness_gain
from sglang_moss.errors import BadReference, LongReference

FULL_SCALE = 0.9999  # samples from here on are clipped; 16-bit ones end at 0.99997
_BY_LIBSNDFILE = ("WAV", "WAVEX", "RF64", "OGG")
_BY_FFMPEG = {"FLAC": "flac", "MP3": "mp3"}  # libsndfile believes or guesses their lengths
_HEAD_BYTES = 2**20  # of tags in front of what tells the format
_PIECE = 2**18  # samples
_BLOCK_S, _MARGIN_S = 20.0, 1.0


@dataclass(frozen=True)
class LongClip:
    """What was written of a clip."""

    n_samples: int
    clipped_share: float  # of the file's samples


def write_waveform(
    path: Path, sample_rate: int, limits: ReferenceLimits, max_samples: int, waveform: BinaryIO
) -> LongClip:
    """Write the waveform of a clip of any length, mono float32.

    Args:
        sample_rate: the codec's, in Hz.
        limits: of channels, rates and peaks.
        max_samples: at `sample_rate`; more are refused as soon as they come.
        waveform: an empty file, open for reading and writing.
    Raises:
        LongReference: longer than `max_samples`.
        BadReference: it cannot be read, or what `load_audio` refuses of samples.
    """
    n_clipped = n_values = n_samples = 0
    low = high = None
    resampler: Resampler | None = None
    power = 0.0

    def write(block: np.ndarray) -> None:
        nonlocal n_samples, power
        n_samples += len(block)
        if n_samples > max_samples:
            raise LongReference.at(0, f"the clip lasts more than {max_samples / sample_rate:.0f} s")
        power += float(np.sum(block.astype(np.float64) ** 2))
        block.tofile(waveform)

    for piece, rate in _pieces(path, limits, max_samples / sample_rate):
        if resampler is None:
            check_shape(piece.shape[1], rate, limits, 0)
            resampler = Resampler(rate, sample_rate)
        check_values(piece, limits, 0)
        n_values += piece.size
        n_clipped += int((np.abs(piece) >= FULL_SCALE).sum())
        low = piece.min(axis=0) if low is None else np.minimum(low, piece.min(axis=0))
        high = piece.max(axis=0) if high is None else np.maximum(high, piece.max(axis=0))
        for block in resampler.feed(piece.mean(axis=1)):
            write(block)
    if resampler is None or low is None or high is None:
        raise BadReference.at(0, "the file holds no sample")
    check_loudness(high - low, 0)
    write(resampler.finish())
    _level(waveform, loudness_gain(np.float32(np.sqrt(power / max(1, n_samples)))))
    return LongClip(n_samples, n_clipped / n_values)


class Resampler:
    """[L] float64 of one channel at one rate to float32 at another, block by block; the same rate changes nothing.

    All blocks together have int(L * sample_rate / rate) samples.
    """

    def __init__(self, rate: int, sample_rate: int) -> None:
        common = gcd(rate, sample_rate)
        self._up, self._down = sample_rate // common, rate // common
        # A block and both margins are whole multiples of the steps that both rates have in common.
        margin_steps = max(1, round(_MARGIN_S * rate / self._down))
        fast_steps: Any = next_fast_len(round(_BLOCK_S * rate / self._down))
        all_steps = max(fast_steps, 2 * margin_steps + 1)
        self._margin, self._whole = margin_steps * self._down, all_steps * self._down
        self._block = self._whole - 2 * self._margin
        self._fade = np.ones(self._whole)
        ramp = np.sin(np.linspace(0, np.pi / 2, self._margin // 2)) ** 2
        self._fade[: len(ramp)], self._fade[self._whole - len(ramp) :] = ramp, ramp[::-1]
        self._held = np.zeros(self._margin)  # in front of the first sample is silence
        self._n_in = self._n_out = 0

    def feed(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Take [L] samples; gives the blocks that are complete by now."""
        self._n_in += len(samples)
        if self._up == self._down:
            self._n_out += len(samples)
            yield samples.astype(np.float32)
            return
        self._held = np.concatenate([self._held, samples])
        while len(self._held) >= self._whole:
            yield self._next_block()

    def finish(self) -> np.ndarray:
        """What is left."""
        n_total = self._n_in * self._up // self._down
        rest = [np.empty(0, np.float32)]
        while self._n_out < n_total:
            self._held = np.pad(self._held, (0, max(0, self._whole - len(self._held))))
            n_left = n_total - self._n_out
            rest.append(self._next_block()[:n_left])
        return np.concatenate(rest)

    def _next_block(self) -> np.ndarray:
        n_margin, n_block = (n * self._up // self._down for n in (self._margin, self._block))
        faded = self._held[: self._whole] * self._fade
        resampled = np.asarray(resample(faded, self._whole * self._up // self._down))
        self._held = self._held[self._block :]
        self._n_out += n_block
        return resampled[n_margin : n_margin + n_block].astype(np.float32)


def _pieces(path: Path, limits: ReferenceLimits, max_seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """[L, channels] float64 and the rate, to the end of the file."""
    try:
        yield from _decoded(path, limits, max_seconds)
    except TooLong:
        raise LongReference.at(0, f"the clip lasts more than {max_seconds:.0f} s") from None
    except UnusableContainer as error:
        raise BadReference.at(0, f"this file cannot be read as audio: {error}") from None
    except soundfile.SoundFileError:
        raise BadReference.at(0, "this file cannot be read as audio") from None


def _decoded(path: Path, limits: ReferenceLimits, max_seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    with path.open("rb") as file:
        demuxer = demuxer_of(file.read(_HEAD_BYTES))
    if demuxer is None:
        with soundfile.SoundFile(path) as sound:
            check_shape(sound.channels, sound.samplerate, limits, 0)
            if sound.format in _BY_LIBSNDFILE:
                for piece in sound.blocks(_PIECE, dtype="float64", always_2d=True):
                    yield piece, sound.samplerate
                return
            demuxer = _BY_FFMPEG.get(sound.format)
            if demuxer is None:
                raise BadReference.at(0, f"the format {sound.format} is not supported; convert it to WAV or FLAC")
    with path.open("rb") as file:
        pieces = sound_pieces(file, demuxer, max_seconds, max_values=np.inf, max_cpu_seconds=np.inf)
        yield from _joined(pieces)


def _joined(pieces: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
    """The same samples in fewer pieces: FFmpeg's have a thousand samples each."""
    held: list[np.ndarray] = []
    n_held = rate = 0
    for piece, rate in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= _PIECE:
            yield np.concatenate(held), rate
            held, n_held = [], 0
    if held:
        yield np.concatenate(held), rate


def _level(waveform: BinaryIO, gain: np.float32) -> None:
    """Multiply a file of float32 in place."""
    waveform.flush()
    if waveform.tell():
        samples = np.memmap(waveform, np.float32, "r+")
        for start in range(0, len(samples), _PIECE):
            samples[start : start + _PIECE] *= gain
        samples.flush()
