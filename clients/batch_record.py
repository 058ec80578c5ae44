"""`output.jsonl` of a batch: a record for every line of the input, and what of them need not be done again.

Records are appended as lines are done, in any order; the last one of a line counts. A run that ends by itself leaves
one record for each line, in the order of the input. A record that a killed run left half written is cut off.
"""

import hashlib
import json
import os
from array import array
from pathlib import Path
from typing import Any

_FINGERPRINT_BYTES = 8


class BatchRecord:
    """The records of one output file. Memory: 8 bytes for every line of the input.

    Args:
        path: of the file; made if it is not there.
        n_lines: of the input; records of lines beyond are dropped.
    Raises:
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, n_lines: int) -> None:
        self._path = path
        self._done = array("Q", bytes(_FINGERPRINT_BYTES * (1 + n_lines)))  # fingerprint by line; 0: not done
        self._file = path.open("a+b")
        self._file.seek(0)
        end = 0
        for raw in self._file:
            if not raw.endswith(b"\n"):
                break
            end += len(raw)
            record = self._record(raw)
            if record is not None:
                self._done[record["line"]] = _fingerprint_in(record)
        os.truncate(path, end)

    def is_done(self, line: int, fingerprint: str) -> bool:
        """Whether this line was spoken, by the very same request."""
        return self._done[line] == int(fingerprint, 16)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record, whose `line` says what it is of."""
        self._file.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()

    def close(self) -> None:
        """End the file as it is."""
        self._file.close()

    def put_in_order(self) -> None:
        """Rewrite the file: the last record of each line, in the order of lines."""
        places = array("Q", bytes(_FINGERPRINT_BYTES * len(self._done)))  # where a line's record begins, plus 1
        self._file.seek(0)
        begin = 0
        for raw in self._file:
            record = self._record(raw)
            if record is not None:
                places[record["line"]] = begin + 1
            begin += len(raw)
        beside = self._path.with_name(f".{self._path.name}.part")
        with beside.open("wb") as ordered:
            for place in places:
                if place:
                    self._file.seek(place - 1)
                    ordered.write(self._file.readline())
        beside.replace(self._path)

    def _record(self, raw: bytes) -> dict[str, Any] | None:
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):
            return None
        line = record.get("line") if isinstance(record, dict) else None
        return record if isinstance(line, int) and 0 < line < len(self._done) else None


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that stand for JSON-like values; never only zeros."""
    data = json.dumps(parts, sort_keys=True).encode()
    digest = hashlib.blake2b(data, digest_size=_FINGERPRINT_BYTES).hexdigest()
    return digest if int(digest, 16) else digest[:-1] + "1"


def _fingerprint_in(record: dict[str, Any]) -> int:
    try:
        return int(record["fingerprint"], 16) % 2 ** (8 * _FINGERPRINT_BYTES)
    except (KeyError, TypeError, ValueError):
        return 0  # a line that failed
