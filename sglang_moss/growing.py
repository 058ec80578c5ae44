"""An array that grows at its end: what one thread appends to and another one reads."""

from collections.abc import Sequence
from typing import overload

import numpy as np

_FIRST_CAPACITY = 64


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
