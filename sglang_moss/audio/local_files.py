"""Files of the folder that clients may name: read within bounds, and known again without being read."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Two writings within one tick of a file system's clock leave one time; its clock may tick once in two seconds.
_SETTLED_NS = 3_000_000_000


class OutOfBoundsError(Exception):
    """No file inside the folder; what there is instead is not told, so that nobody learns which files exist."""


class TooLargeError(Exception):
    """More bytes than are to be read: the file's, as the argument."""


class FileVersion(NamedTuple):
    """What a file holds, as its file system tells it: another content is another version.

    Only a file that has been left alone for some seconds has one.
    """

    device: int
    inode: int
    n_bytes: int
    modified_ns: int
    changed_ns: int  # of the inode: nobody sets it back


def version_of(path: str, root: Path) -> FileVersion | None:
    """The version of a file; None: it was written only just now.

    Args:
        path: absolute; links are followed.
        root: the folder that it has to lie in.
    Raises:
        OutOfBoundsError: it does not, or is no regular file.
    """
    with _opened(path, root) as file:
        return _version(file)


def read_file(path: str, root: Path, max_bytes: int) -> tuple[bytes, FileVersion | None]:
    """What a file holds, and its version, if it has been left alone for long.

    Raises:
        OutOfBoundsError: as `version_of`.
        TooLargeError: it has more than `max_bytes`, or has grown beyond that.
    """
    with _opened(path, root) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            raise TooLargeError(size)
        before = _version(file)
        data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise TooLargeError(len(data))
        return data, before if before == _version(file) else None


@contextmanager
def _opened(path: str, root: Path) -> Iterator[BinaryIO]:
    try:
        resolved = Path(os.path.realpath(path, strict=True))
        if not resolved.is_relative_to(root.resolve(strict=True)):
            raise OutOfBoundsError
        # Without O_NONBLOCK the opening of a pipe would wait for a writer.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OutOfBoundsError
            yield file
    except (OSError, ValueError):  # ValueError: a NUL in the path
        raise OutOfBoundsError from None


def _version(file: BinaryIO) -> FileVersion | None:
    status = os.fstat(file.fileno())
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return None
    return FileVersion(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
