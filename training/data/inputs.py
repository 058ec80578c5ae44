"""JSONL files: their lines, in order, and what they were when a run began."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BadRecord, DataError

_READ_BYTES = 2**20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Line:
    """A line that is not blank.

    Attributes:
        number: over all files and their lines, blank ones too, from 0; it names the line in the journal.
        path: of its file.
        place: in its file, from 1.
        default_id: of a record that has none; unique, as files of one name are numbered.
    """

    number: int
    path: Path
    place: int
    default_id: str
    raw: bytes

    def content(self) -> dict[str, Any]:
        """The object that it holds.

        Raises:
            BadRecord: it holds none.
        """
        try:
            content = json.loads(self.raw.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise BadRecord(f"expected UTF-8, got another encoding at byte {error.start}; save it in UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"no JSON: {error}") from None
        if not isinstance(content, dict):
            raise BadRecord(f"expected a JSON object on each line, got {type(content).__name__}")
        return content


@dataclass(frozen=True)
class InputDigest:
    """What one file was: its name without folders, SHA-256 in hexadecimal digits, and lines that are not blank."""

    name: str
    sha256: str
    n_lines: int


def lines_of(paths: Sequence[Path]) -> Iterator[Line]:
    """All lines that are not blank, file after file."""
    number = 0
    stems: Counter[str] = Counter()
    for path in paths:
        stems[path.stem] += 1
        prefix = path.stem if stems[path.stem] == 1 else f"{path.stem}.{stems[path.stem]}"
        with path.open("rb") as file:
            for place, raw in enumerate(file, 1):
                if not raw.isspace():
                    yield Line(number, path, place, f"{prefix}-{place}", raw)
                number += 1


def digest(path: Path) -> InputDigest:
    """Read a file once.

    Raises:
        DataError: it is no regular file, or no text in UTF-8.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file: input is read several times")
    sha256, n_lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        head = file.read(_READ_BYTES)
        if head.startswith(_UTF16) or b"\0" in head:
            raise DataError(f"{path}: expected JSON lines in UTF-8, got something else; save it in UTF-8")
        file.seek(0)
        for raw in file:
            sha256.update(raw)
            n_lines += not raw.isspace()
    return InputDigest(path.name, sha256.hexdigest(), n_lines)
