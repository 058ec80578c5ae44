"""Clips that came before, as they came: one that is written out again is compared, and neither decoded nor hashed."""

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_SAMPLES = 16  # places of a content that tell it from most others
_SAMPLE_LENGTH = 16

_Value = TypeVar("_Value")


class KnownContents(Generic[_Value]):
    """Values by content, least recently used first out, bounded by the size of contents and values.

    A few characters find the one content that may be equal; whether it is, a comparison of all of it says. Contents
    that share those characters take each other's place, and only cost what they would cost without this. Belongs to
    one thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._known: OrderedDict[Hashable, tuple[str | bytes, _Value]] = OrderedDict()

    def value_of(self, text: object, start: int = 0, end: int | None = None) -> _Value | None:
        """What was remembered of a content that equals this part of `text`, of the same type; None: nothing."""
        if not isinstance(text, str | bytes):
            return None
        key = _key(text, start, len(text) if end is None else end)
        found = self._known.get(key)
        if found is None or not _begins(text, start, found[0]):
            return None
        self._known.move_to_end(key)
        return found[1]

    def remember(self, content: str | bytes, value: _Value) -> None:
        """Keep a content, unless it takes more than a quarter of the room."""
        size = _size(content, value)
        if 4 * size > self._max_bytes:
            return
        key = _key(content, 0, len(content))
        if key in self._known:
            self._n_bytes -= _size(*self._known.pop(key))
        self._known[key] = content, value
        self._n_bytes += size
        while self._n_bytes > self._max_bytes:
            _, evicted = self._known.popitem(last=False)
            self._n_bytes -= _size(*evicted)


def _size(content: str | bytes, value: object) -> int:
    return sys.getsizeof(content) + sys.getsizeof(value)


def _begins(text: str | bytes, start: int, content: str | bytes) -> bool:
    """Whether `content`, of the same type, stands in `text` from `start` on."""
    if isinstance(text, str) and isinstance(content, str):
        return text is content or text.startswith(content, start)
    return (
        isinstance(text, bytes) and isinstance(content, bytes) and (text is content or text.startswith(content, start))
    )


def _key(text: str | bytes, start: int, end: int) -> Hashable:
    step = max(1, (end - start) // _SAMPLES)
    samples = (text[at : min(at + _SAMPLE_LENGTH, end)] for at in range(start, end, step))
    return type(text), end - start, *samples
