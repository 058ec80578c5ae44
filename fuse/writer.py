"""Copying weights: streamed into new shards with a digest of every tensor, then read back and compared.

One buffer of 16 MiB is all the memory it takes, whatever the size of a tensor or shard. Files are read with plain
reads: a source that shrinks meanwhile is an error here, and a crash of the process under a memory map.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from .checkpoint import INDEX_NAME, read_weights
from .errors import FuseError, listed
from .plan import FusePlan, PlannedShard
from .safetensors_file import StoredTensor

CHUNK_BYTES = 16 * 1024**2

OnBytes = Callable[[int], object]  # told how many bytes of tensors were just handled


def write_weights(plan: FusePlan, directory: Path, on_bytes: OnBytes) -> dict[str, bytes]:
    """Write every shard and the index into `directory`, on disk when it returns.

    Returns:
        SHA-256 of the bytes that were read for each fused tensor, by fused name.
    Raises:
        FuseError: a source became shorter since it was planned.
        OSError: reading or writing failed.
    """
    digests: dict[str, bytes] = {}
    for shard in plan.shards:
        _write_shard(shard, directory / shard.name, digests, on_bytes)
    write_file(directory / INDEX_NAME, plan.index_bytes())
    return digests


def verify_weights(plan: FusePlan, directory: Path, digests: dict[str, bytes], on_bytes: OnBytes) -> None:
    """Read the weights in `directory` back from disk and compare names, dtypes, shapes and digests with the plan.

    Raises:
        FuseError: anything differs.
    """
    planned = plan.sources()
    written = read_weights(directory)
    if written.keys() != planned.keys():
        raise _damaged(directory, sorted(written.keys() ^ planned.keys()), "are not those that were planned")
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with ExitStack() as stack:
        files = _OpenFiles(stack, drop_cache=True)
        for name, tensor in written.items():
            source = planned[name]
            if (tensor.dtype, tensor.shape) != (source.dtype, source.shape):
                raise _damaged(tensor.path, [name], "came back with another dtype or shape")
            digest = hashlib.sha256()
            for chunk in _chunks(files.open(tensor.path), tensor, buffer):
                digest.update(chunk)
                on_bytes(len(chunk))
            if digest.digest() != digests[name]:
                raise _damaged(tensor.path, [name], "came back with other bytes than were written")


def write_file(path: Path, content: bytes) -> None:
    """Write a small file, on disk when it returns."""
    with path.open("xb") as file:
        file.write(content)
        _flush(file)


def flush_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _OpenFiles:
    """Files opened once each, unbuffered, and closed with `stack`."""

    def __init__(self, stack: ExitStack, drop_cache: bool = False) -> None:
        self._stack = stack
        self._drop_cache = drop_cache  # so that reads come from the disk and not from memory
        self._files: dict[Path, FileIO] = {}

    def open(self, path: Path) -> FileIO:
        if path not in self._files:
            file = self._stack.enter_context(path.open("rb", buffering=0))
            if self._drop_cache:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._files[path] = file
        return self._files[path]


def _write_shard(shard: PlannedShard, path: Path, digests: dict[str, bytes], on_bytes: OnBytes) -> None:
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with ExitStack() as stack, path.open("xb") as target:
        sources = _OpenFiles(stack)
        target.write(shard.header)
        for name, source in shard.tensors:
            digest = hashlib.sha256()
            for chunk in _chunks(sources.open(source.path), source, buffer):
                digest.update(chunk)
                target.write(chunk)
                on_bytes(len(chunk))
            digests[name] = digest.digest()
        _flush(target)


def _chunks(file: FileIO, tensor: StoredTensor, buffer: memoryview) -> Iterator[memoryview]:
    """The bytes of a tensor, in views of `buffer` that are valid until the next one."""
    file.seek(tensor.offset)
    n_left = tensor.n_bytes
    while n_left:
        n_read = file.readinto(buffer[: min(n_left, len(buffer))])
        if not n_read:
            raise FuseError(f"{tensor.path} ended inside tensor {tensor.name}: it changed meanwhile, start again")
        n_left -= n_read
        yield buffer[:n_read]


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _damaged(path: Path, names: list[str], how: str) -> FuseError:
    return FuseError(f"{path}: tensors {listed(names)} {how}: check the disk and fuse again")
