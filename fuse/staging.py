"""A directory that appears whole or not at all, and the signals that may interrupt its making.

.OUT.fusing-1f3a9c20/      everything is written here, on the file system of OUT
OUT/                       the old one lives until the rename that puts the new one in its place
"""

import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .errors import FuseError
from .writer import flush_directory

STAGING_MARK = ".fusing-"
HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Turns the first SIGINT, SIGTERM or SIGHUP into an exception, and none once `closing` is set.

    SIGINT raises KeyboardInterrupt, the others SystemExit(128 + number). While things are put in order no second
    signal may stop that, so the first one sets `closing` too. A signal that the caller ignores or handles stays his.
    Does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self) -> None:
        self.closing = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED_SIGNALS:
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # pyright: ignore[reportArgumentType]

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.closing:
            return
        self.closing = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


@contextmanager
def staged_directory(out: Path, interruption: Interruption, *, overwrite: bool) -> Iterator[Path]:
    """A new directory to fill, which becomes `out` when the block ends well and is removed when it does not.

    Args:
        out: resolved path; missing parents are made, and removed again on failure.
        overwrite: whether an `out` that exists is replaced; it is untouched until the new one is whole.
    Raises:
        FuseError: `out` exists at the end and `overwrite` is false.
        OSError: a directory cannot be made or renamed.
    """
    made_parents = [parent for parent in out.parents if not parent.exists()]
    staging = out.with_name(f".{out.name}{STAGING_MARK}{secrets.token_hex(4)}")
    retired = staging.with_name(staging.name + ".old")
    try:
        staging.mkdir(parents=True)
        yield staging
        flush_directory(staging)
        interruption.closing = True
        if overwrite and out.exists():
            out.rename(retired)
        elif out.exists():
            raise FuseError(f"{out} appeared meanwhile: pass --overwrite to replace it")
        staging.rename(out)
        flush_directory(out.parent)
    finally:
        interruption.closing = True
        if retired.exists() and not out.exists():
            retired.rename(out)
        for leftover in (staging, retired):
            shutil.rmtree(leftover, ignore_errors=True)
        if not out.exists():
            for parent in made_parents:
                _remove_if_empty(parent)


def leftovers(out: Path) -> list[str]:
    """Staging directories of killed runs (or of one that goes on now) beside `out`."""
    return sorted(str(path) for path in out.parent.glob(f".{out.name}{STAGING_MARK}*"))


def nearest_existing(path: Path) -> Path:
    """`path` itself or the closest parent that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
