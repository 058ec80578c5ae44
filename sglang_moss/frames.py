"""Rows to frames: which generated rows hold audio, and the whole frames in them.

Source: MOSS-TTSD served path, assembly of the answer. A single frame, which the served path drops, is a frame here.
"""

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.delay_pattern import remove_delay


class FrameReader:
    """Reads the frames of one request off its accepted rows, as they come.

    Audio starts with the first generated row if the prompt ends in audio, else after the first <audio_start>; it ends
    before the first row that holds neither a generation nor a delay slot.
    """

    def __init__(self, tokens: SpecialTokens, continues_prompt: bool) -> None:
        self._tokens = tokens
        self._audio_start = 0 if continues_prompt else None  # first row with codes
        self._scanned = 0  # rows whose text ids have been looked at
        self._audio_end: int | None = None  # first row after the audio
        self._n_read = 0  # frames returned

    def read(self, rows: list[np.ndarray]) -> np.ndarray:
        """Frames that have become whole since the last call.

        Args:
            rows: all accepted rows so far, each [1 + n_vq]: text id, codes.
        Returns:
            [T, n_vq] int64, T may be 0.
        """
        self._scan(rows)
        n_vq = self._tokens.n_vq
        if self._audio_start is None:
            return np.empty((0, n_vq), np.int64)
        first = self._audio_start + self._n_read
        end = self._scanned if self._audio_end is None else self._audio_end
        if end - first < n_vq:
            return np.empty((0, n_vq), np.int64)
        frames = remove_delay(np.stack(rows[first:end])[:, 1:].astype(np.int64))
        self._n_read += len(frames)
        return frames

    def _scan(self, rows: list[np.ndarray]) -> None:
        tokens = self._tokens
        while self._scanned < len(rows) and self._audio_end is None:
            text_id = rows[self._scanned][0]
            if self._audio_start is None:
                if text_id == tokens.audio_start:
                    self._audio_start = self._scanned + 1
            elif text_id not in (tokens.gen_slot, tokens.delay_slot):
                self._audio_end = self._scanned
                return
            self._scanned += 1
