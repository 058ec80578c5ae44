"""A folder of a server's own for its sockets and other short-lived files, so that none is left behind.

SGLang makes the addresses of its sockets with `tempfile` and removes no file of them. The HTTP process makes them all:
while it lives, its `tempfile` works in this folder. What it starts keeps the usual one, where compilers have caches
that outlive a server; but for cuTile, which makes a folder in every process that imports it, and forgets it in one that
is killed.

A lock on the folder is held by the process and ends with it, whatever ends it: a folder that is not locked is nobody's,
and the next server removes it. That holds among containers that share a file system, where process ids do not.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "sglang-moss-"
_CUTILE = "CUDA_TILE_TEMP_DIR"
_made: dict[Path, int] = {}  # folders of this process: file descriptors that hold their locks
os.register_at_fork(after_in_child=_made.clear)  # they are its parent's


def enter() -> Path:
    """Make the folder, and remove those of servers that are gone; a process that has one keeps it.

    Raises:
        OSError: the folder for temporary files cannot be written.
    """
    for folder in _made:
        return folder
    root = Path(tempfile.gettempdir())
    for folder in root.glob(f"{_PREFIX}*"):
        _remove_if_left(folder)
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=root))
    descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    folder = new.rename(root / new.name.removeprefix("."))  # locked before another server can find it
    _made[folder] = descriptor
    tempfile.tempdir = str(folder)
    os.environ.setdefault(_CUTILE, str(folder / "cutile"))
    atexit.register(remove)
    return folder


def remove() -> None:
    """Remove what `enter` made in this process; without it, or twice, nothing happens."""
    for folder in list(_made):
        shutil.rmtree(folder, ignore_errors=True)
        os.close(_made.pop(folder))
        tempfile.tempdir = None
        if os.environ.get(_CUTILE) == str(folder / "cutile"):
            del os.environ[_CUTILE]


def _remove_if_left(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # a file, another user's, or gone
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its server lives
        pass
    finally:
        os.close(descriptor)
