"""A prepared dataset, read by random access: nothing of it is in memory but the lengths in its index.

dataset = SpeechDataset("data/alice")
dataset.n_frames[7], dataset.ids[7], dataset[7].codes
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from sglang_moss.request.template import FIELDS

from ..example import Example
from .errors import DataError
from .mapped import MappedFile, MappedShards
from .storage import CODE_DTYPE, INDEX_NAME, NO_REFERENCE, DatasetInfo, examples_name, references_name

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
        self._index = MappedFile(path / INDEX_NAME).reader.read_all()
        if len(self._index) != self.info.n_examples:
            raise DataError(f"{path / INDEX_NAME} has {len(self._index)} rows, expected {self.info.n_examples}")
        self.ids: pa.ChunkedArray = self._index.column("id")
        self._rows_of = (self.numbers("shard"), self.numbers("row"))
        self._examples = MappedShards(path, examples_name, self.info.shard_rows)
        self._references = MappedShards(path, references_name, self.info.reference_rows)

    def numbers(self, column: str) -> np.ndarray:
        """[N] int32."""
        # Arrow's own way imports pandas, which takes seconds.
        chunks = [
            np.frombuffer(chunk.buffers()[1], np.int32, len(chunk), chunk.offset * np.dtype(np.int32).itemsize)
            for chunk in self._index.column(column).chunks
        ]
        return np.concatenate(chunks) if chunks else np.empty(0, np.int32)

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
    if (n_twice := len(ids) - len(ids.unique())) == 0:
        return
    counts = ids.value_counts()
    first = next(
        value for value, n in zip(counts.field("values"), counts.field("counts"), strict=True) if n.as_py() > 1
    )
    where = " and ".join(str(part.path) for part in parts)
    raise DataError(f"{n_twice} ids come twice in {where}, first {first.as_py()!r}: ids must be unique")
