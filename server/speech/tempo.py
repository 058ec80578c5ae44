"""Speech that is faster or slower and keeps its pitch: FFmpeg's `atempo`, fed as the samples come."""

from fractions import Fraction

import av
import numpy as np
from av.error import BlockingIOError as NothingYet
from av.error import EOFError as NothingMore
from av.filter import Graph

from .encoding import Encoder

SLOWEST, FASTEST = 0.5, 2.0  # beyond, a voice is no longer one


class Tempo:
    """Takes the samples of a speech and gives those of the stretched one; whatever the pieces, the result is the same.

    Args:
        speed: 2.0 lasts half as long.
        sample_rate: in Hz.
    """

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._n_samples = 0
        self._graph = Graph()
        source = self._graph.add_abuffer(
            format="s16", sample_rate=sample_rate, layout="mono", time_base=Fraction(1, sample_rate)
        )
        stretch = self._graph.add("atempo", f"{speed:.6f}")
        sink = self._graph.add("abuffersink")
        source.link_to(stretch)
        stretch.link_to(sink)
        self._graph.configure()

    def add(self, pcm: np.ndarray) -> np.ndarray:
        """The next [L] int16 samples; returns what is known of the stretched ones by now."""
        if not len(pcm):
            return pcm
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[None], np.int16), format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.time_base = Fraction(1, self._sample_rate)
        frame.pts = self._n_samples
        self._n_samples += len(pcm)
        self._graph.push(frame)
        return self._pull()

    def finish(self) -> np.ndarray:
        """The samples that were held back."""
        if not self._n_samples:
            return np.empty(0, np.int16)
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> np.ndarray:
        pieces = [np.empty(0, np.int16)]
        while True:
            try:
                pieces.append(self._graph.pull().to_ndarray()[0])
            except (NothingYet, NothingMore):
                return np.concatenate(pieces)


class StretchingEncoder:
    """An encoder of speech that is stretched first."""

    def __init__(self, encoder: Encoder, speed: float, sample_rate: int) -> None:
        self._encoder = encoder
        self._tempo = Tempo(speed, sample_rate)

    def encode(self, pcm: np.ndarray) -> bytes:
        """See `Encoder`."""
        return self._encoder.encode(self._tempo.add(pcm))

    def finish(self) -> bytes:
        """See `Encoder`."""
        return self._encoder.encode(self._tempo.finish()) + self._encoder.finish()
