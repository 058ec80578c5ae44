"""The safetensors format, as bytes: where each tensor of a file lies, and the header of a new file.

    8 bytes: n, little endian | n bytes: JSON {name: {dtype, shape, data_offsets}}, padded with spaces | data

Tensors are handled by position and length alone, so every dtype, bf16 included, is copied exactly and no tensor
library is loaded. A new file orders its tensors as the reference's library does: wide dtypes first, then by name.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FuseError
from .json_file import parse_object

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LFS_POINTER = b"version https://git-lfs"

# Bits per element; the order is the library's, narrow to wide, and decides how a new file is laid out.
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
    "U64": 64,
}  # fmt: skip
DTYPE_RANK = {dtype: rank for rank, dtype in enumerate(DTYPE_BITS)}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a safetensors file."""

    name: str
    dtype: str  # the format's word, such as "BF16"
    shape: tuple[int, ...]
    path: Path  # the file that holds it
    offset: int  # of its first byte, from the start of the file
    n_bytes: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of one file, by name, checked against the file's size.

    Raises:
        FuseError: the file is missing, cut short, longer than its header says, or not safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(LENGTH_BYTES)
            n_header = int.from_bytes(start, "little")
            fits = len(start) == LENGTH_BYTES and n_header <= min(size - LENGTH_BYTES, MAX_HEADER_BYTES)
            header = file.read(n_header) if fits else start + file.read(len(LFS_POINTER))
    except FileNotFoundError:
        raise FuseError(f"{path} is missing: download the whole checkpoint") from None
    if not fits:
        if header.startswith(LFS_POINTER):
            raise FuseError(f"{path} is a Git LFS pointer and not the weights: run `git lfs pull`")
        raise FuseError(f"{path} ({size} bytes) is cut short or not a safetensors file: download it again")

    entries = parse_object(header, f"the header of {path}")
    entries.pop("__metadata__", None)
    data_start = LENGTH_BYTES + n_header
    tensors = [_located(path, name, entry, data_start) for name, entry in entries.items()]
    end = data_start
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.n_bytes)):
        if tensor.offset != end:
            raise FuseError(f"{path}: tensor {tensor.name} overlaps another or leaves a gap: download the file again")
        end += tensor.n_bytes
    if end != size:
        how = "cut short" if size < end else "too long"
        raise FuseError(f"{path} is {how}: its header announces {end} bytes, it has {size}: download it again")
    return {tensor.name: tensor for tensor in tensors}


def file_order(tensor_dtype: str, tensor_name: str) -> tuple[int, str]:
    """Sort key of a tensor inside a new file."""
    return -DTYPE_RANK[tensor_dtype], tensor_name


def build_header(tensors: Iterable[tuple[str, StoredTensor]]) -> bytes:
    """Length and JSON of a new file that holds `tensors` (name in the new file, what to copy) one after the other."""
    entries = {}
    end = 0
    for name, source in tensors:
        offsets = [end, end + source.n_bytes]
        entries[name] = {"dtype": source.dtype, "shape": list(source.shape), "data_offsets": offsets}
        end += source.n_bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % LENGTH_BYTES)  # so that the data, widest dtype first, is aligned
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _located(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise FuseError(f"{path}: tensor {name} lacks dtype, shape or data_offsets: download the file again")
    if dtype not in DTYPE_BITS:
        raise FuseError(f"{path}: tensor {name} has dtype {dtype}, known are {', '.join(DTYPE_BITS)}: convert it")
    sizes_fit = all(isinstance(n, int) and n >= 0 for n in shape)
    if not sizes_fit or math.prod(shape) * DTYPE_BITS[dtype] != 8 * (end - begin):
        raise FuseError(
            f"{path}: tensor {name} of shape {shape} and dtype {dtype} cannot fill {end - begin} bytes: "
            "download the file again"
        )
    return StoredTensor(name, dtype, tuple(shape), path, data_start + begin, end - begin)
