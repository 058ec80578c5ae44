"""Clips that came before, as they came: one that is written out again is compared, and neither decoded nor hashed."""

import sys
from collections import OrderedDict
from collections.abc import Hashable

_SAMPLES = 16  # places of a content that tell it from most others
_SAMPLE_LENGTH = 16


class KnownContents:
    """Digests by content, least recently used first out, bounded by the size of the contents.

    A few characters find the one content that may be equal; whether it is, a comparison of all of it says. Contents
    that share those characters take each other's place, and only cost what they would cost without this.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._known: OrderedDict[Hashable, tuple[str | bytes, bytes]] = OrderedDict()

    def digest_of(self, content: object) -> bytes | None:
        """What was remembered of an equal content of the same type; None: nothing."""
        if not isinstance(content, str | bytes):
            return None
        found = self._known.get(key := _key(content))
        if found is None or found[0] != content:
            return None
        self._known.move_to_end(key)
        return found[1]

    def remember(self, content: str | bytes, digest: bytes) -> None:
        """Keep a content, unless it takes more than a quarter of the room."""
        size = sys.getsizeof(content)
        if 4 * size > self._max_bytes:
            return
        key = _key(content)
        self._n_bytes += size - sys.getsizeof(self._known.pop(key)[0]) if key in self._known else size
        self._known[key] = content, digest
        while self._n_bytes > self._max_bytes:
            _, (evicted, _) = self._known.popitem(last=False)
            self._n_bytes -= sys.getsizeof(evicted)


def _key(content: str | bytes) -> Hashable:
    n = len(content)
    step = max(1, n // _SAMPLES)
    return type(content), n, *(content[start : start + _SAMPLE_LENGTH] for start in range(0, n, step))
