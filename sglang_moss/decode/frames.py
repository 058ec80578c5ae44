"""Rows to frames: which generated rows hold audio, and the whole frames in them.

Source: MOSS-TTSD served path, assembly of the answer. A single frame, which the served path drops, is a frame here.
"""

import sys

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.layout import remove_delay
from sglang_moss.request.speech import GrowingArray

NEVER = sys.maxsize  # more rows than a request can have


class FrameReader:
    """Reads the frames of one request off its accepted rows, as they come; looks at every row once.

    Audio starts with the first generated row if the prompt ends in audio, else after the first <audio_start>; it ends
    before the first row that holds neither a generation nor a delay slot.
    """

    def __init__(self, tokens: SpecialTokens, continues_prompt: bool) -> None:
        self._tokens = tokens
        self._audio_start = 0 if continues_prompt else None  # first row with codes
        self._scanned = 0  # rows whose text ids have been looked at
        self._audio_end: int | None = None  # first row after the audio
        self._n_read = 0  # frames returned

    def read(self, rows: GrowingArray | np.ndarray) -> np.ndarray:
        """Frames that have become whole since the last call.

        Args:
            rows: all accepted rows so far, [S, 1 + n_vq]: text id, codes.
        Returns:
            [T, n_vq] of the same dtype, T may be 0.
        """
        if self._audio_end is None:
            self._scan(rows[self._scanned :][:, 0])
        n_vq = self._tokens.n_vq
        end = self._scanned if self._audio_end is None else self._audio_end
        first = end if self._audio_start is None else self._audio_start + self._n_read
        if end - first < n_vq:
            return rows[:0][:, 1:]
        frames = remove_delay(rows[first:end][:, 1:])
        self._n_read += len(frames)
        return frames

    def rows_until(self, n_frames: int) -> int:
        """How many rows there are, at the least, once `n_frames` more frames are whole; `NEVER` after the audio."""
        if self._audio_end is not None:
            return NEVER
        start = self._scanned + 1 if self._audio_start is None else self._audio_start
        return start + self._n_read + n_frames + self._tokens.n_vq - 1

    def rows_of(self, n_frames: int) -> int:
        """How many rows make the first `n_frames` whole, once the audio has begun."""
        assert self._audio_start is not None
        return self._audio_start + n_frames + self._tokens.n_vq - 1

    def _scan(self, text_ids: np.ndarray) -> None:
        """Look at the text ids [n] of the rows that have not been looked at."""
        tokens, first = self._tokens, 0
        if self._audio_start is None:
            starts = np.flatnonzero(text_ids == tokens.audio_start)
            if len(starts) == 0:
                self._scanned += len(text_ids)
                return
            first = int(starts[0]) + 1
            self._audio_start = self._scanned + first
        others = np.flatnonzero((text_ids[first:] != tokens.gen_slot) & (text_ids[first:] != tokens.delay_slot))
        if len(others):
            self._audio_end = self._scanned + first + int(others[0])
        self._scanned += len(text_ids)
