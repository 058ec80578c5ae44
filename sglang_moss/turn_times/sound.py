"""Speech as stretches of sound between pauses, each with what its voice sounds like.

A frame is 10 ms. A stretch ends at a pause of at least 40 ms, or inside of speech where its level dips: where nobody
pauses between two turns, a dip is the only place that they can meet.

    level     12 cepstra of 20 mel bands, and the pitch        of a stretch: means over its loud frames
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import dct
from scipy.ndimage import minimum_filter1d, uniform_filter1d

FRAME_S = 0.01
N_FEATURES = 13
_SHORTEST_PAUSE = 4  # frames
_BELOW_SPEECH_DB, _SOFT_BELOW_DB, _ABOVE_FLOOR_DB, _LOWEST_DBFS = 32.0, 42.0, 6.0, -65.0
_DIP_DB, _DIP_FRAMES = 9.0, 12  # so much below the level around it, and no other dip so near
_WINDOW_S = 0.04
_N_BANDS, _N_CEPSTRA = 20, 12
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 6_000.0
_PITCH_HZ = (70.0, 350.0)
_VOICED = 0.45  # of the autocorrelation's peak
_BLOCK_S = 20.0  # worked on at a time, so that memory does not grow with the speech


@dataclass(frozen=True)
class Stretches:
    """[S] stretches in order; in frames where nothing else is said.

    Attributes:
        start: [S] int64, first frame.
        end: [S] int64, frame after the last.
        features: [S, N_FEATURES] float64, cepstra and the logarithm of the pitch; NaN where there is none.
        n_frames: of the whole speech.
    """

    start: np.ndarray
    end: np.ndarray
    features: np.ndarray
    n_frames: int

    def __len__(self) -> int:
        return len(self.start)

    @property
    def pauses(self) -> np.ndarray:
        """[S - 1] seconds of silence between a stretch and the next; 0 at a dip."""
        return (self.start[1:] - self.end[:-1]) * FRAME_S


def stretches_of(pcm: np.ndarray, sample_rate: int) -> Stretches:
    """What is heard in [L] int16 samples; no stretch where they are silent."""
    hop = round(sample_rate * FRAME_S)
    n_frames = len(pcm) // hop
    if not n_frames:
        return Stretches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, N_FEATURES)), 0)
    levels, features = _frames(pcm, sample_rate, hop, n_frames)
    start, end = _divide(levels)
    means = np.full((len(start), N_FEATURES), np.nan)
    for i, (a, b) in enumerate(zip(start, end, strict=True)):
        loud = levels[a:b] > np.max(levels[a:b]) - 20.0
        inside = features[a:b][loud]
        means[i, :_N_CEPSTRA] = inside[:, :_N_CEPSTRA].mean(axis=0)
        voiced = inside[:, _N_CEPSTRA]
        if np.isfinite(voiced).any():
            means[i, _N_CEPSTRA] = np.nanmedian(voiced)
    return Stretches(start, end, means, n_frames)


def _divide(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First frames and ends of stretches, from [T] levels in dBFS."""
    loud = float(np.percentile(levels, 95))
    floor = float(np.percentile(levels, 2))
    threshold = max(loud - _BELOW_SPEECH_DB, min(floor + _ABOVE_FLOOR_DB, loud - 15.0), _LOWEST_DBFS)
    silent = np.concatenate([[True], levels < threshold, [True]])
    edges = np.flatnonzero(silent[1:] != silent[:-1])
    start, end = edges[::2], edges[1::2]
    if not len(start):
        return start, end
    kept = np.flatnonzero(start[1:] - end[:-1] >= _SHORTEST_PAUSE)
    start, end = start[np.concatenate([[0], kept + 1])], end[np.concatenate([kept, [len(end) - 1]])]
    start, end = _with_soft_edges(levels, start, end, max(loud - _SOFT_BELOW_DB, floor + _ABOVE_FLOOR_DB, _LOWEST_DBFS))
    smooth = uniform_filter1d(levels, 5)
    lowest = minimum_filter1d(smooth, 2 * _DIP_FRAMES + 1)
    dips = np.flatnonzero((smooth == lowest) & (smooth < _around(smooth) - _DIP_DB))
    owner = np.searchsorted(start, dips, side="right") - 1
    dips = dips[(owner >= 0) & (dips > start[owner] + _DIP_FRAMES) & (dips < end[owner] - _DIP_FRAMES)]
    return np.sort(np.concatenate([start, dips])), np.sort(np.concatenate([end, dips]))


def _with_soft_edges(
    levels: np.ndarray, start: np.ndarray, end: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Stretches with the soft sounds that they begin and end with; two never meet."""
    soft = uniform_filter1d(levels, 3) > threshold
    start, end = start.copy(), end.copy()
    limits = [0, *((end[:-1] + start[1:]) // 2).tolist(), len(levels)]
    for i in range(len(start)):
        before, after = soft[limits[i] : start[i]], soft[end[i] : limits[i + 1]]
        start[i] -= len(before) if before.all() else int(np.argmin(before[::-1]))
        end[i] += len(after) if after.all() else int(np.argmin(after))
    for i in np.flatnonzero(start[1:] == end[:-1]):  # soft all through
        end[i], start[i + 1] = end[i] - 1, start[i + 1] + 1
    return start, end


def _around(smooth: np.ndarray) -> np.ndarray:
    """The level that is reached on both sides of each frame within 250 ms."""
    width = 25
    padded = np.pad(smooth, width, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    peaks = windows.max(axis=1)
    return np.minimum(peaks[: len(smooth)], peaks[width + 1 : width + 1 + len(smooth)])


def _frames(pcm: np.ndarray, sample_rate: int, hop: int, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """[T] levels in dBFS, and [T, N_FEATURES] float32."""
    window = round(sample_rate * _WINDOW_S)
    n_fft = 1 << (2 * window - 1).bit_length()
    bands = _mel_bands(sample_rate, n_fft)
    shape = np.hanning(window)
    unbias = np.fft.irfft(np.abs(np.fft.rfft(shape, n_fft)) ** 2, n_fft)
    unbias /= unbias[0]
    low, high = (round(sample_rate / hz) for hz in _PITCH_HZ[::-1])
    levels, features = np.empty(n_frames), np.empty((n_frames, N_FEATURES), np.float32)
    block = round(_BLOCK_S / FRAME_S)
    before = (window - hop) // 2
    for first in range(0, n_frames, block):
        last = min(first + block, n_frames)
        begin, end = first * hop - before, last * hop - hop - before + window
        piece = np.pad(pcm[max(0, begin) : end], (max(0, -begin), max(0, end - len(pcm)))).astype(np.float64) / 32768
        own = pcm[first * hop : last * hop].reshape(-1, hop).astype(np.float64) / 32768
        levels[first:last] = 10 * np.log10(np.maximum(np.mean(own**2, axis=1), 1e-12))
        framed = np.lib.stride_tricks.sliding_window_view(piece, window)[::hop][: last - first] * shape
        power = np.abs(np.fft.rfft(framed, n_fft, axis=1)) ** 2
        mel = np.log(power @ bands + 1e-9)
        features[first:last, :_N_CEPSTRA] = np.asarray(dct(mel, axis=1, norm="ortho"))[:, 1 : 1 + _N_CEPSTRA]
        correlation = np.fft.irfft(power, n_fft, axis=1)
        normal = correlation[:, low:high] / (np.maximum(correlation[:, :1], 1e-12) * unbias[low:high])
        lag = np.argmax(normal, axis=1)
        is_voiced = normal[np.arange(len(lag)), lag] > _VOICED
        features[first:last, _N_CEPSTRA] = np.where(is_voiced, np.log(sample_rate / (lag + low)), np.nan)
    return levels, features


def _mel_bands(sample_rate: int, n_fft: int) -> np.ndarray:
    """[n_fft // 2 + 1, bands] triangles."""
    highest = min(_HIGHEST_HZ, sample_rate / 2)
    lowest_mel, highest_mel = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, highest))
    mels = np.linspace(lowest_mel, highest_mel, _N_BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    hz = np.fft.rfftfreq(n_fft, 1 / sample_rate)[:, None]
    rising, falling = (hz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hz) / np.diff(edges)[1:]
    return np.clip(np.minimum(rising, falling), 0, None)
