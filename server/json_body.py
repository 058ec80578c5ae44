"""A body in JSON, read without holding up what else runs: most of a large one is clips in base64.

A parser holds Python's lock until it is done: 100 MB stop every stream of this process for a tenth of a second, a tenth
of that in small values for longer. So long strings are cut out first, each in a step of its own; what is left is
parsed, if that is no more than requests need; and the strings come back as they were. One thing is not held against a
long string that is plain ASCII: line ends and other control characters in it, which JSON would have escaped.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from sglang_moss.errors import BadRequest
from sglang_moss.request.known_contents import KnownContents

_SMALL_BYTES = 1 << 18  # less takes no time
_SHORT_BYTES = 1 << 21  # less takes some milliseconds at most, if it is a few long strings and little else
_LONG_CHARS = 1 << 16  # of a string that is cut out
_KNOWN_BYTES = 1 << 27  # of long strings that are remembered: a hundred clips of ten seconds
_MAX_BACKSLASHES = 64
_MAX_VALUES = 400_000
_NO_JSON = (
    "the body is no valid JSON: expected an object with `text` or `input`, whole characters, numbers within 64 bits "
    "and no NaN"
)


@dataclass(frozen=True)
class _Limits:
    """Of a body that is not small."""

    quotes: int
    rest_bytes: int  # of everything but long strings


_FEW = _Limits(quotes=500, rest_bytes=_SMALL_BYTES)
_MOST = _Limits(quotes=200_000, rest_bytes=1 << 24)


_known = KnownContents[str](_KNOWN_BYTES)  # of the event loop's thread


def remember_at_most(n_bytes: int) -> None:
    """Bound what is remembered of former bodies; 0: nothing is."""
    global _known
    _known = KnownContents[str](min(_KNOWN_BYTES, n_bytes))


class _TooMuch(BadRequest):
    """Beyond the limits that were given."""


def is_quick(body: bytes) -> bool:
    """Whether it is read in the event loop's thread, unless there is too much in it."""
    return len(body) <= _SHORT_BYTES


async def read_json(body: bytes, when_long: Callable[[], None] = lambda: None) -> Any:
    """The value of a body.

    Args:
        when_long: called before it is read in another thread.
    Raises:
        BadRequest: it is no JSON, or has more in it than any request needs.
    """
    if is_quick(body):
        with contextlib.suppress(_TooMuch):
            return parse_json(body, _FEW, _known)
    when_long()
    return await asyncio.to_thread(parse_json, body)


def parse_json(body: bytes, limits: _Limits = _MOST, known: KnownContents[str] | None = None) -> Any:
    """As `read_json`, in the thread that calls.

    Args:
        known: long strings of former bodies, as they stood there; those of this one are added.
    """
    try:
        if len(body) <= _SMALL_BYTES:
            return orjson.loads(body)
        rest, strings = _cut(body, limits.quotes, known)
        if len(rest) > limits.rest_bytes:
            most = f"{limits.rest_bytes >> 20} MiB"
            raise _TooMuch(f"the body has more than {most} beside clips in base64; send what is to be spoken")
        if sum(rest.count(sign) for sign in (b",", b"[", b"{")) > _MAX_VALUES:
            raise BadRequest(f"the body has more than {_MAX_VALUES} values in it; send what is to be spoken")
        return _put_back(orjson.loads(rest), strings)
    except (orjson.JSONDecodeError, RecursionError):
        raise BadRequest(_NO_JSON) from None


def _cut(body: bytes, max_quotes: int, known: KnownContents[str] | None) -> tuple[bytes, dict[str, str]]:
    """The body with a short name for each long string, and the strings by these names."""
    nonce = secrets.token_hex(16)
    kept: list[bytes] = []
    strings: dict[str, str] = {}
    end = 0  # of what has been kept
    start = -1  # of the string that the position is in
    position = 0
    for _ in range(max_quotes + 1):
        position = body.find(b'"', position)
        if position < 0:
            if start >= 0:
                raise BadRequest(_NO_JSON)
            kept.append(body[end:])
            return b"".join(kept), strings
        if start < 0:
            start = position + 1
        elif not _is_escaped(body, start, position):
            if position - start > _LONG_CHARS:
                name = f"{nonce}{len(strings)}"
                strings[name] = _known_string(body, start, position, known)
                kept += (body[end:start], name.encode())
                end = position
            start = -1
        position += 1
    raise _TooMuch(f"the body has more than {max_quotes} quotation marks in it; send what is to be spoken")


def _known_string(body: bytes, start: int, end: int, known: KnownContents[str] | None) -> str:
    """As `_string`; the same object for the same voice, so that nobody need look at it again."""
    if known is None:
        return _string(body, start, end)
    found = known.value_of(body, start, end)
    if found is None:
        found = _string(body, start, end)
        known.remember(body[start:end], found)
    return found


def _string(body: bytes, start: int, end: int) -> str:
    """What stands between two quotation marks."""
    if body.find(b"\\", start, end) < 0:
        try:
            return str(memoryview(body)[start:end], "ascii")
        except UnicodeDecodeError:
            pass
    return orjson.loads(b'"%b"' % body[start:end])


def _is_escaped(body: bytes, start: int, position: int) -> bool:
    """Whether the quotation mark at `position`, in a string from `start` on, is part of the string."""
    before = body[max(start, position - _MAX_BACKSLASHES) : position]
    n_backslashes = len(before) - len(before.rstrip(b"\\"))
    if n_backslashes == _MAX_BACKSLASHES:
        raise BadRequest(f"the body has {_MAX_BACKSLASHES} backslashes in a row; send what is to be spoken")
    return n_backslashes % 2 == 1


def _put_back(value: Any, strings: dict[str, str]) -> Any:
    if isinstance(value, str):
        return strings.get(value, value)
    if isinstance(value, list):
        return [_put_back(one, strings) for one in value]
    if isinstance(value, dict):
        return {_put_back(name, strings): _put_back(one, strings) for name, one in value.items()}
    return value
