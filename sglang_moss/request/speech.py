"""One speech request as it travels from the HTTP process to the scheduler and the model."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, overload

import numpy as np

from sglang_moss.request.prompt import SpeechPrompt
from sglang_moss.request.settings import RequestOptions

_FIRST_CAPACITY = 64
_ROW_WITH_CODES = 1 << 62  # above every vocabulary, below int64's sign
_HASH_MASK = _ROW_WITH_CODES - 1
_KNOWN_RUNS = 512  # of rows with codes, whose keys are remembered; a voice has one or two
_KNOWN_ROWS = 800  # of such a run; a minute of speech. With 16 codebooks the largest take 60 KB each


@dataclass(frozen=True)
class SpeechRequest:
    """What the scheduler process needs to know of a request; small arrays only, pickled once."""

    prompt: SpeechPrompt
    options: RequestOptions
    reference_cached: bool  # every reference of this request had been encoded before

    @property
    def last_audio_row(self) -> int:
        """`DelayState.last_audio_row` for a request whose length is fixed, 0 for one that ends by itself."""
        if not self.options.ignore_eos or self.options.max_frames is None:
            return 0
        return len(self.prompt.prompt_codes) + self.options.max_frames


class GrowingArray:
    """Rows [n, width] of int32, n growing; appending costs constant time in the mean.

    One thread may append while another one reads: a row is visible once it is whole, and never changes afterwards, so
    a view stays right for ever.
    """

    def __init__(self, width: int) -> None:
        self._array = np.empty((_FIRST_CAPACITY, width), np.int32)
        self._length = 0

    def append(self, row: np.ndarray) -> None:
        """Add one row [width]."""
        n = self._length
        if n == len(self._array):
            self._make_room(n + 1)
        self._array[n] = row
        self._length = n + 1

    def extend(self, rows: np.ndarray | Sequence[np.ndarray]) -> None:
        """Add rows [m, width], m may be 0."""
        n = self._length
        end = n + len(rows)
        if end > len(self._array):
            self._make_room(end)
        if end > n:
            self._array[n:end] = rows
        self._length = end

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> np.ndarray: ...
    def __getitem__(self, index: int | slice) -> np.ndarray:
        """A view of one row, or of several; IndexError for a row that is not there."""
        n = self._length  # before the array, which may be replaced by a longer one, never by a shorter one
        return self._array[:n][index]

    def _make_room(self, n_rows: int) -> None:
        grown = np.empty((max(n_rows, 2 * len(self._array)), self._array.shape[1]), np.int32)
        grown[: self._length] = self._array[: self._length]
        self._array = grown


@dataclass
class SpeechProgress:
    """What one request has produced, kept on SGLang's `Req` in the scheduler process.

    The scheduler's thread appends rows; the codec's thread reads them, says when it wants to be woken, and how far a
    listener is supplied.
    """

    request: SpeechRequest
    rows: GrowingArray = field(init=False)  # accepted rows [n, 1 + n_vq]: text id, codes
    wake_at: int = 1  # rows at which the codec has something to do
    on_slot_freed: Callable[[Any], None] | None = None  # given the `Req`; set once the codec knows of this request
    began: float = 0.0  # when the first row was accepted, in seconds of `time.monotonic`
    heard_until: float | None = None  # when the listener of a stream runs dry, likewise; None: has heard nothing
    marks: dict[str, float] | None = None  # of its first sound, see `first_sound`; None: nobody asked
    accepted: list[float] = field(default_factory=list)  # when rows were, up to the first sound, where somebody asked

    def __post_init__(self) -> None:
        self.marks = {} if self.request.options.timings else None
        self.rows = GrowingArray(self.request.prompt.rows.shape[1])

    def all_rows(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Rows [first, end) of the prompt and what has been accepted after it: [n, 1 + n_vq] int64."""
        prompt = self.request.prompt.rows
        n_prompt = len(prompt)
        end = n_prompt + len(self.rows) if end is None else end
        accepted = self.rows[max(0, first - n_prompt) : max(0, end - n_prompt)]
        return np.concatenate([prompt[first:end], np.reshape(accepted, (-1, prompt.shape[1]))], dtype=np.int64)


def row_keys(rows: np.ndarray, pad_code: int) -> array:
    """Keys of prompt rows in the prefix cache: [S, 1 + n_vq] int32, as array('q') of length S."""
    has_codes = (rows[:, 1:] != pad_code).any(axis=1)
    keys = rows[:, 0].astype(np.int64)
    ends = np.flatnonzero(np.diff(has_codes, prepend=False, append=False)).tolist()  # of runs with codes: voices
    for start, end in zip(ends[::2], ends[1::2], strict=True):
        hashes = _known_hashes if end - start <= _KNOWN_ROWS else _hashes
        keys[start:end] = hashes(rows[start:end].tobytes(), rows.shape[1] * rows.itemsize)
    return array("q", keys.tobytes())


def _hashes(data: bytes, n_bytes: int) -> np.ndarray:
    """[n] int64: keys of rows with codes, of `n_bytes` each."""
    digests = b"".join(
        blake2b(data[start : start + n_bytes], digest_size=8).digest() for start in range(0, len(data), n_bytes)
    )
    return _ROW_WITH_CODES | (np.frombuffer(digests, np.int64) & _HASH_MASK)


_known_hashes = lru_cache(_KNOWN_RUNS)(_hashes)
