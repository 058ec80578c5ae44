"""The directory that a dataset is made in, and the folder in it that holds what is not finished.

OUTPUT_DIR/work/    plan.json, the journal, waveforms on their way, logs of processes; gone when all is done
OUTPUT_DIR/         the dataset, see `storage`, with rejected.jsonl, warnings.jsonl and the plan
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataError
from .storage import INDEX_NAME, INFO_NAME, REJECTED_NAME, WORK_NAME

PLAN_NAME = "plan.json"
WARNINGS_NAME = "warnings.jsonl"
JOURNAL_NAME = "journal"
_SHARDS = ("examples-*.arrow", "references-*.arrow")
_FILES = (INFO_NAME, INDEX_NAME, REJECTED_NAME, WARNINGS_NAME, PLAN_NAME)


def require_ours(directory: Path) -> None:
    """Refuse a directory that holds something else than an unfinished dataset.

    Raises:
        DataError: it does, or it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is a file: name a directory to make with --output-dir")
    if directory.exists() and any(directory.iterdir()) and not (directory / WORK_NAME).is_dir():
        raise DataError(f"{directory} holds something else than a dataset: name a new directory with --output-dir")


def remove(directory: Path) -> None:
    """Remove a dataset, finished or not, `dataset.json` first; anything else in the directory stays.

    Raises:
        DataError: another run is writing into it.
    """
    work = directory / WORK_NAME
    if not (directory / INFO_NAME).is_file() and not work.is_dir():
        return
    work.mkdir(exist_ok=True)  # and is there at the end: the directory is ours
    with alone_in(work):
        for path in (*(directory / name for name in _FILES), *(p for s in _SHARDS for p in directory.glob(s))):
            path.unlink(missing_ok=True)
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def publish(made: Path, directory: Path) -> None:
    """Give all files of `made` their names in `directory`, `dataset.json` last, and let no other shard stay."""
    for shards in _SHARDS:
        for old in directory.glob(shards):
            old.unlink()
    for path in sorted(made.iterdir(), key=lambda path: path.name == INFO_NAME):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(directory / path.name)


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Keeps other runs out; the system ends this when the process ends, however it does.

    Raises:
        DataError: another run is in there.
    """
    lock = os.open(work / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another run is writing into {work.parent}") from None
    finally:
        os.close(lock)
