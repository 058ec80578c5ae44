"""A prepared dataset, read by random access: nothing of it is in memory but the lengths in its index.

dataset = SpeechDataset("data/alice")
dataset.n_frames[7], dataset.ids[7], dataset[7].codes
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from sglang_moss.request.template import FIELDS

from ..example import Example
from .errors import DataError
from .storage import (
    BATCH_ROWS,
    CODE_DTYPE,
    INDEX_NAME,
    NO_REFERENCE,
    DatasetInfo,
    examples_name,
    references_name,
)

# Directories may differ in these, and are one dataset nevertheless.
_OF_ONE_DIRECTORY = ("normalizer", "n_examples", "n_frames", "n_rejected", "n_given_codes")


class SpeechDataset:
    """Examples of one or several directories, in the order in which they were written.

    May be pickled, and used in several processes: each maps the files by itself.

    Attributes:
        info: of the whole; with several directories, counts are added up.
        n_frames: [N] int32, of each target.
        n_prompt_rows: [N] int32, of each prompt by the template of `info`.
        n_speakers: [N] int32, who speak in each target; 0 without a text.
    """

    def __init__(self, path: str | Path | Sequence[str | Path]) -> None:
        """
        Args:
            path: a dataset's directory, or several.
        Raises:
            DataError: a directory is no finished dataset of this version, two do not belong together or have an id in
                common, or a file is missing or damaged.
        """
        self._paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
        if not self._paths:
            raise DataError("no dataset was named")
        self._parts = [_Directory(one) for one in self._paths]
        self.info = _joined(self._parts)
        self._ends = np.cumsum([len(part.ids) for part in self._parts])
        self.n_frames = np.concatenate([part.numbers("n_frames") for part in self._parts])
        self.n_prompt_rows = np.concatenate([part.numbers("n_prompt_rows") for part in self._parts])
        self.n_speakers = np.concatenate([part.numbers("n_speakers") for part in self._parts])
        self.ids = Ids(self._parts)
        if len(self._parts) > 1:
            _refuse_common_ids(self._parts)

    def __len__(self) -> int:
        return len(self.n_frames)

    def __getitem__(self, i: int) -> Example:
        """Example i; its arrays are views of the files, and read-only."""
        part, row = self._place(i)
        return self._parts[part].example(row)

    def count_languages(self) -> Counter[str]:
        """Examples by their field `language`, "" for those without."""
        return sum((part.count_languages() for part in self._parts), Counter())

    def __reduce__(self) -> tuple[type, tuple[list[Path]]]:
        return type(self), (self._paths,)

    def _place(self, i: int) -> tuple[int, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        i %= len(self)
        part = int(np.searchsorted(self._ends, i, side="right"))
        return part, i - int(self._ends[part - 1] if part else 0)


class Ids(Sequence[str]):
    """Ids of all examples, read from the index as they are asked for."""

    def __init__(self, parts: Sequence["_Directory"]) -> None:
        self._columns = [part.ids for part in parts]
        self._ends = np.cumsum([len(column) for column in self._columns])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"id {index} of {len(self)}")
        index %= len(self)
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._columns[part][index - int(self._ends[part - 1] if part else 0)].as_py()


class _Directory:
    """One directory, mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = DatasetInfo.read(path)
        self._index = _open(path / INDEX_NAME).read_all()
        if len(self._index) != self.info.n_examples:
            raise DataError(f"{path / INDEX_NAME} has {len(self._index)} rows, expected {self.info.n_examples}")
        self.ids: pa.ChunkedArray = self._index.column("id")
        self._rows_of = (self.numbers("shard"), self.numbers("row"))
        self._examples = _Files(path, examples_name, self.info.shard_rows)
        self._references = _Files(path, references_name, self.info.reference_rows)

    def numbers(self, column: str) -> np.ndarray:
        """[N] int32."""
        return self._index.column(column).to_numpy()

    def example(self, i: int) -> Example:
        shards, rows = self._rows_of
        batch, row = self._examples.row(int(shards[i]), int(rows[i]))
        values = {name: batch.column(name)[row].as_py() for name in FIELDS}
        references = batch.column("references")[row].as_py()
        return Example(
            id=batch.column("id")[row].as_py(),
            fields={name: value for name, value in values.items() if value is not None},
            codes=self._codes(batch, row),
            references=None if references is None else tuple(map(self._reference, references)),
        )

    def count_languages(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for batch in self._examples.batches():
            counts.update(value or "" for value in batch.column("language").to_pylist())
        return counts

    def _reference(self, number: int) -> np.ndarray | None:
        if number == NO_REFERENCE:
            return None
        return self._codes(*self._references.row(*self._references.place(number)))

    def _codes(self, batch: pa.RecordBatch, row: int) -> np.ndarray:
        """[T, n_vq] uint16."""
        return np.frombuffer(batch.column("codes")[row].as_buffer(), CODE_DTYPE).reshape(-1, self.info.n_vq)


class _Files:
    """Numbered Arrow files, opened when they are asked for."""

    def __init__(self, path: Path, name: Callable[[int], str], n_rows: Sequence[int]) -> None:
        self._paths = [path / name(i) for i in range(len(n_rows))]
        for file in self._paths:
            if not file.is_file():
                raise DataError(f"{file} is missing: copy the whole directory, or prepare it again")
        self._ends = np.cumsum(n_rows)
        self._open: dict[int, pa.RecordBatchFileReader] = {}

    def place(self, number: int) -> tuple[int, int]:
        """File and row of the row that is `number` over all files."""
        file = int(np.searchsorted(self._ends, number, side="right"))
        return file, number - int(self._ends[file - 1] if file else 0)

    def row(self, file: int, row: int) -> tuple[pa.RecordBatch, int]:
        """The batch of a row, and the row's place in it."""
        return self._file(file).get_batch(row // BATCH_ROWS), row % BATCH_ROWS

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them, in order."""
        for file in map(self._file, range(len(self._paths))):
            for i in range(file.num_record_batches):
                yield file.get_batch(i)

    def _file(self, file: int) -> pa.RecordBatchFileReader:
        if file not in self._open:
            self._open[file] = _open(self._paths[file])
        return self._open[file]


def _open(path: Path) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise DataError(f"{path} is missing or damaged, prepare the dataset again: {error}") from None


def _joined(parts: Sequence[_Directory]) -> DatasetInfo:
    """One info for all; DataError where they do not belong together."""
    first, *others = parts
    joined = first.info
    for part in others:
        for name, value in vars(part.info).items():
            if name.endswith("_rows") or name in _OF_ONE_DIRECTORY:
                continue
            if value != getattr(joined, name):
                raise DataError(
                    f"{first.path} and {part.path} cannot be one dataset: {name} is {getattr(joined, name)} in one "
                    f"and {value} in the other"
                )
        joined = replace(
            joined,
            normalizer=joined.normalizer if part.info.normalizer == joined.normalizer else "mixed",
            shard_rows=joined.shard_rows + part.info.shard_rows,
            reference_rows=joined.reference_rows + part.info.reference_rows,
            **{name: getattr(joined, name) + getattr(part.info, name) for name in _OF_ONE_DIRECTORY[1:]},
        )
    return joined


def _refuse_common_ids(parts: Sequence[_Directory]) -> None:
    ids = pa.chunked_array([chunk for part in parts for chunk in part.ids.chunks], pa.string())
    counts = ids.value_counts()
    twice = np.flatnonzero(counts.field("counts").to_numpy() > 1)
    if len(twice):
        first = counts.field("values")[int(twice[0])].as_py()
        where = " and ".join(str(part.path) for part in parts)
        raise DataError(f"{len(twice)} ids come twice in {where}, first {first!r}: ids must be unique")
