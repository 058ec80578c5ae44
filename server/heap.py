"""Memory that a body took is kept for the next one.

glibc gives what is large, or lies at the end of its heap, back to the system as soon as it is free, and each page that
is asked for anew costs a fault: hundreds for a body of a megabyte, which take longer than what is done with it. Bodies
beyond two megabytes are few, and go as they come.
"""

import ctypes

_KEPT_BYTES = 1 << 27  # that are free, at most, at the end of the heap
_LARGE_BYTES = 1 << 21  # more is given back by itself: what is kept is no more than usual bodies took at one time
_TOP_PAD, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -2, -1, -3  # `mallopt`'s names for what is set
_OPTIONS = {
    _MMAP_THRESHOLD: _LARGE_BYTES,  # else it grows up to 32 MB with what is freed, and what is small pins the rest
    _TRIM_THRESHOLD: _KEPT_BYTES,
    _TOP_PAD: 1 << 24,
}


def keep_freed_memory() -> bool:
    """Let this process keep it; whether its C library knows how to."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) == 1 for option, value in _OPTIONS.items())
