"""Writing a dataset's files, in the order of its examples; see `storage`.

What is written depends on what is added and on nothing else, so that two runs of one input give the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .storage import (
    BATCH_ROWS,
    CODE_DTYPE,
    EXAMPLE_SCHEMA,
    INDEX_NAME,
    INDEX_SCHEMA,
    REFERENCE_SCHEMA,
    SHARD_BYTES,
    examples_name,
    references_name,
)

_INDEX_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class StoredExample:
    """One example as the files hold it.

    Attributes:
        fields: of the user turn.
        codes: [T, n_vq] integers.
        references: numbers that `DatasetWriter.add_reference` gave, or `storage.NO_REFERENCE`; None: no such field.
        audio_sha256: of the target's file; None: its codes were given.
    """

    id: str
    fields: Mapping[str, str | int]
    codes: np.ndarray
    references: Sequence[int] | None
    n_prompt_rows: int
    n_speakers: int
    audio_sha256: bytes | None


class DatasetWriter:
    """Files of one dataset but for `dataset.json`, in a directory that is not published yet.

    Args:
        directory: an existing one; files in it are replaced.
        shard_bytes: of codes, after which the next file begins.
    """

    def __init__(self, directory: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._examples = _Shards(directory, examples_name, EXAMPLE_SCHEMA, shard_bytes)
        self._references = _Shards(directory, references_name, REFERENCE_SCHEMA, shard_bytes)
        self._index = _File(directory / INDEX_NAME, INDEX_SCHEMA, _INDEX_BATCH_ROWS)
        self._n_references = 0
        self.n_examples = 0
        self.n_frames = 0

    def add_reference(self, codes: np.ndarray) -> int:
        """Write a voice, [T, n_vq] integers; returns its number."""
        data = _bytes(codes)
        self._references.add({"codes": data}, len(data))
        self._n_references += 1
        return self._n_references - 1

    def add(self, example: StoredExample) -> None:
        data = _bytes(example.codes)
        absent = dict.fromkeys(EXAMPLE_SCHEMA.names)
        row = {**absent, "id": example.id, **example.fields, "references": example.references, "codes": data}
        shard, place = self._examples.add(row, len(data))
        self._index.add(
            {
                "id": example.id,
                "shard": shard,
                "row": place,
                "n_frames": len(example.codes),
                "n_prompt_rows": example.n_prompt_rows,
                "n_speakers": example.n_speakers,
                "audio_sha256": example.audio_sha256,
            }
        )
        self.n_examples += 1
        self.n_frames += len(example.codes)

    def close(self) -> tuple[list[int], list[int]]:
        """End all files; returns the rows of each file of examples, and of references."""
        self._index.close()
        return self._examples.close(), self._references.close()


class _Shards:
    """Numbered files of one schema."""

    def __init__(self, directory: Path, name: Callable[[int], str], schema: pa.Schema, shard_bytes: int) -> None:
        self._directory, self._name, self._schema, self._shard_bytes = directory, name, schema, shard_bytes
        self._file: _File | None = None
        self._n_bytes = 0
        self._n_rows: list[int] = []

    def add(self, row: dict[str, Any], n_bytes: int) -> tuple[int, int]:
        """Shard and row of what was written."""
        if self._file is None:
            self._file = _File(self._directory / self._name(len(self._n_rows)), self._schema, BATCH_ROWS)
            self._n_bytes = 0
            self._n_rows.append(0)
        self._file.add(row)
        self._n_rows[-1] += 1
        place = len(self._n_rows) - 1, self._n_rows[-1] - 1
        self._n_bytes += n_bytes
        if self._n_bytes >= self._shard_bytes:
            self._file.close()
            self._file = None
        return place

    def close(self) -> list[int]:
        if self._file is not None:
            self._file.close()
        return self._n_rows


class _File:
    """One Arrow IPC file, written a batch at a time."""

    def __init__(self, path: Path, schema: pa.Schema, batch_rows: int) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._schema, self._batch_rows = schema, batch_rows
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._batch_rows:
            self._write()

    def close(self) -> None:
        if self._rows:
            self._write()
        self._writer.close()
        self._sink.close()

    def _write(self) -> None:
        self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _bytes(codes: np.ndarray) -> bytes:
    return codes.astype(CODE_DTYPE).tobytes()
