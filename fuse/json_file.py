"""A JSON object on disk: read with refusals that name the file, written the way the reference writes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FuseError


@dataclass(frozen=True)
class JsonFile:
    """One JSON object and where it came from.

    `integer`, `text` and `mapping` take a dotted field name ("language_config.pad_token_id") and raise `FuseError`
    where the field is missing or of another type.
    """

    path: Path
    content: dict[str, Any]

    def integer(self, field: str) -> int:
        value = self._value(field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._unfit(field, value, "an integer")
        return value

    def text(self, field: str) -> str:
        value = self._value(field)
        if not isinstance(value, str) or not value:
            raise self._unfit(field, value, "a string")
        return value

    def mapping(self, field: str) -> dict[str, Any]:
        value = self._value(field)
        if not isinstance(value, dict):
            raise self._unfit(field, value, "an object")
        return value

    def _value(self, field: str) -> Any:
        value: Any = self.content
        for part in field.split("."):
            if not isinstance(value, dict) or part not in value:
                raise FuseError(f"{self.path} has no field {field!r}: take the file of the published checkpoint")
            value = value[part]
        return value

    def _unfit(self, field: str, value: Any, expected: str) -> FuseError:
        return FuseError(
            f"{self.path}: field {field!r} must be {expected}, found {json.dumps(value)[:80]}; "
            "take the file of the published checkpoint"
        )


def read_json(path: Path) -> JsonFile:
    """Read a file that must hold one JSON object.

    Raises:
        FuseError: the file is missing, is not JSON in UTF-8, names a key twice, or holds something else than an object.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FuseError(f"{path} is missing: download the whole checkpoint") from None
    return JsonFile(path, parse_object(raw, f"{path}"))


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `raw`; `where` names it in the `FuseError` that refuses anything else."""
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise FuseError(f"{where} cannot be read as JSON ({error}): download it again") from error
    if not isinstance(content, dict):
        raise FuseError(f"{where} must hold a JSON object, found {type(content).__name__}: download it again")
    return content


def to_bytes(content: dict[str, Any]) -> bytes:
    """Sorted, indented by 2, ASCII-escaped, with a final newline: what the reference writes."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice")
    return content
