"""Parts of one speech, joined without a click: a short crossfade of equal gain, every other sample as it was."""

import numpy as np


class Crossfade:
    """Takes the samples of part after part and gives those of the whole; whatever the chunks, the result is the same.

    Args:
        n_overlap: samples over which one part fades into the next; 0: samples pass as they come.
    """

    def __init__(self, n_overlap: int) -> None:
        self.n_overlap = n_overlap
        self._ending = np.empty(0, np.int16)  # of the part before, until the next one has faded in
        self._pending = np.empty(0, np.int16)  # of this part, what has not left yet

    def add(self, pcm: np.ndarray) -> np.ndarray:
        """The next [L] int16 samples of this part; returns the samples of the whole that are known by now."""
        self._pending = np.concatenate([self._pending, pcm])
        n_fade = len(self._ending)
        if n_fade and len(self._pending) < n_fade:
            return self._pending[:0]
        if n_fade:
            rising = (np.arange(n_fade) + 0.5) / n_fade
            mixed = self._ending * (1 - rising) + self._pending[:n_fade] * rising
            self._pending = np.concatenate([np.rint(mixed).astype(np.int16), self._pending[n_fade:]])
            self._ending = self._ending[:0]
        n_out = max(0, len(self._pending) - self.n_overlap)
        out, self._pending = self._pending[:n_out], self._pending[n_out:]
        return out

    def next_part(self) -> None:
        """What is added from here on belongs to the next part. A part shorter than the overlap is not faded into."""
        self._ending = np.concatenate([self._ending, self._pending])
        self._pending = self._pending[:0]

    def finish(self) -> np.ndarray:
        """The samples that were held back."""
        return np.concatenate([self._ending, self._pending])
