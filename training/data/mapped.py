"""Arrow files, mapped: what is read of them stays the system's to keep or to drop, and does not add up in the process.

Pages that a process has touched count as its own until they are given back, so they are, now and then; arrays that
were handed out stay valid, as their pages come back when they are looked at.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from .errors import DataError
from .storage import BATCH_ROWS

_LOOKS = 64  # after which pages are given back; the system maps those around what is looked at as well


class MappedFile:
    """One Arrow IPC file.

    Raises:
        DataError: it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.reader = pa.ipc.open_file(pa.py_buffer(self._map))
        except (pa.ArrowInvalid, ValueError, OSError) as error:  # ValueError: an empty file cannot be mapped
            raise DataError(f"{path} is missing or damaged, prepare the dataset again: {error}") from None

    def give_back(self) -> None:
        """Let the system count none of its pages as this process's."""
        self._map.madvise(mmap.MADV_DONTNEED)


class MappedShards:
    """Numbered files of one schema, opened when they are asked for.

    Args:
        name: of a file by its number.
        n_rows: of each file.
    Raises:
        DataError: one is missing.
    """

    def __init__(self, directory: Path, name: Callable[[int], str], n_rows: Sequence[int]) -> None:
        self._paths = [directory / name(i) for i in range(len(n_rows))]
        for path in self._paths:
            if not path.is_file():
                raise DataError(f"{path} is missing: copy the whole directory, or prepare it again")
        self._ends = np.cumsum(n_rows)
        self._open: dict[int, MappedFile] = {}
        self._n_looks = 0

    def place(self, number: int) -> tuple[int, int]:
        """File and row of the row that is `number` over all files."""
        file = int(np.searchsorted(self._ends, number, side="right"))
        return file, number - int(self._ends[file - 1] if file else 0)

    def row(self, file: int, row: int) -> tuple[pa.RecordBatch, int]:
        """The batch of a row, and the row's place in it."""
        self._n_looks += 1
        if self._n_looks == _LOOKS:
            self._n_looks = 0
            for mapped in self._open.values():
                mapped.give_back()
        return self._file(file).reader.get_batch(row // BATCH_ROWS), row % BATCH_ROWS

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them, in order."""
        for i in range(len(self._paths)):
            file = self._file(i)
            for batch in range(file.reader.num_record_batches):
                yield file.reader.get_batch(batch)
            file.give_back()

    def _file(self, file: int) -> MappedFile:
        if file not in self._open:
            self._open[file] = MappedFile(self._paths[file])
        return self._open[file]
