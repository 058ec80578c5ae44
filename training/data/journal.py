"""What is encoded, as it comes: an append-only file from which a run that was broken off goes on.

    entry    header: magic, bytes of facts, bytes of codes, CRC-32 of both | facts, JSON | codes, [T, n_vq] uint16

An entry is one write, and counts if it is whole: a killed process leaves at most a torn last one, which is cut off.
In memory are places in the file only.
"""

import json
import os
import struct
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError
from .messages import FileStamp
from .storage import CODE_DTYPE

_HEADER = struct.Struct("<4sIII")
_MAGIC = b"clip"
_MAX_PARTS = 2  # clips of one target


@dataclass(frozen=True)
class Entry:
    """One clip that is done with.

    Attributes:
        problem: why it has no codes; None: it has.
        stamp: of the clip's file when it was read; None: there was none.
        sha256: of the clip's file.
        codes: [T, n_vq] uint16.
    """

    problem: str | None
    stamp: FileStamp | None
    sha256: bytes = b""
    clipped_share: float = 0.0
    codes: np.ndarray | None = None


class Journal:
    """The journal of one run.

    Args:
        path: made if it is not there.
        n_vq: of the codes.
    Raises:
        DataError: an entry in the middle is damaged.
    """

    def __init__(self, path: Path, n_vq: int) -> None:
        self._path, self._n_vq = path, n_vq
        self._targets = array("q")  # place by line and part, plus 1; 0: not there
        self._references: dict[str, int] = {}  # place by path
        self._voices: dict[bytes, int] = {}  # place by content, of references with codes
        self.n_found = 0  # entries of earlier runs
        self._file = path.open("a+b")
        self._end = self._scan()
        os.truncate(path, self._end)

    def target(self, line: int, part: int) -> Entry | None:
        """What is known of a target's clip; None: nothing."""
        index = line * _MAX_PARTS + part
        place = self._targets[index] if index < len(self._targets) else 0
        return self._read(place - 1) if place else None

    def reference(self, path: str) -> Entry | None:
        """What is known of a reference, by the path in its record."""
        place = self._references.get(path)
        return None if place is None else self._read(place)

    def voice(self, sha256: bytes) -> Entry | None:
        """What is known of a reference with this content."""
        place = self._voices.get(sha256)
        return None if place is None else self._read(place)

    def add_target(self, line: int, part: int, entry: Entry) -> None:
        self._append({"line": line, "part": part}, entry)

    def add_reference(self, path: str, entry: Entry) -> None:
        """A reference; one whose content came before may leave its codes out."""
        self._append({"path": path}, entry)

    def close(self) -> None:
        self._file.close()

    def _append(self, of: Mapping[str, Any], entry: Entry) -> None:
        facts: dict[str, Any] = dict(of)
        if entry.stamp is not None:
            facts["stamp"] = [entry.stamp.n_bytes, entry.stamp.mtime_ns]
        if entry.problem is not None:
            facts["problem"] = entry.problem
        else:
            facts |= {"sha256": entry.sha256.hex(), "clipped": entry.clipped_share}
        data = b"" if entry.codes is None else entry.codes.astype(CODE_DTYPE).tobytes()
        text = json.dumps(facts).encode()
        crc = zlib.crc32(data, zlib.crc32(text))
        self._file.write(_HEADER.pack(_MAGIC, len(text), len(data), crc) + text + data)
        self._file.flush()
        self._remember(self._end, facts, bool(data))
        self._end += _HEADER.size + len(text) + len(data)

    def _scan(self) -> int:
        """Take in all whole entries; returns where they end."""
        size = self._path.stat().st_size
        self._file.seek(0)
        place = 0
        while place < size:
            header = self._file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                break
            magic, n_text, n_data, crc = _HEADER.unpack(header)
            end = place + _HEADER.size + n_text + n_data
            if magic == _MAGIC and end > size:
                break
            text, data = self._file.read(n_text), self._file.read(n_data)
            if magic != _MAGIC or zlib.crc32(data, zlib.crc32(text)) != crc:
                if magic == _MAGIC and end == size:
                    break  # the system went down with it: a length that was written, bytes that were not
                raise DataError(f"{self._path} is damaged at byte {place}: begin again with --overwrite")
            self._remember(place, json.loads(text), bool(data))
            self.n_found += 1
            place = end
        return place

    def _remember(self, place: int, facts: Mapping[str, Any], has_codes: bool) -> None:
        if "path" in facts:
            self._references[facts["path"]] = place
            if has_codes:
                self._voices[bytes.fromhex(facts["sha256"])] = place
            return
        index = facts["line"] * _MAX_PARTS + facts["part"]
        if index >= len(self._targets):
            self._targets.frombytes(bytes(self._targets.itemsize * (index + 1024 - len(self._targets))))
        self._targets[index] = place + 1

    def _read(self, place: int) -> Entry:
        header = os.pread(self._file.fileno(), _HEADER.size, place)
        _magic, n_text, n_data, _crc = _HEADER.unpack(header)
        rest = os.pread(self._file.fileno(), n_text + n_data, place + _HEADER.size)
        facts = json.loads(rest[:n_text])
        stamp = FileStamp(*facts["stamp"]) if "stamp" in facts else None
        if "problem" in facts:
            return Entry(facts["problem"], stamp)
        codes = np.frombuffer(rest, CODE_DTYPE, offset=n_text).reshape(-1, self._n_vq) if n_data else None
        return Entry(None, stamp, bytes.fromhex(facts["sha256"]), facts["clipped"], codes)
