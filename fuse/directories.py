"""Directories that a command reads, and the one that it makes and may replace."""

import re
from os import PathLike
from pathlib import Path

from .errors import FuseError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def input_directory(option: str, path: str | PathLike[str]) -> Path:
    """A checkpoint's directory, resolved.

    Args:
        option: that named it.
        path: as it was given.
    Raises:
        FuseError: there is none.
    """
    directory = Path(path).expanduser()
    if directory.is_dir() and str(path):
        return directory.resolve()
    if directory.exists():
        raise FuseError(f"{option} must be a local checkpoint directory, found {str(path)!r}: pass its directory")
    remedy = "check the path"
    if _HUB_ID.fullmatch(str(path)):
        remedy = f"if it is a hub id, run `hf download {path} --local-dir DIR` first and pass DIR"
    raise FuseError(f"{option} must be a local checkpoint directory, but {path} does not exist: {remedy}")


def output_directory(path: str | PathLike[str], inputs: list[Path], overwrite: bool) -> Path:
    """The directory of `--save-path`, resolved.

    Args:
        path: as it was given.
        inputs: directories that must survive.
        overwrite: it may exist.
    Raises:
        FuseError: it exists, or an input would go with it.
    """
    if not str(path):
        raise FuseError("--save-path is empty: name the directory to make")
    out = Path(path).expanduser().resolve()
    # Downloaded checkpoints may be links into a store elsewhere; what they point to must survive as well.
    inputs = inputs + [file.resolve() for directory in inputs for file in directory.iterdir()]
    for source in inputs:
        if out.is_relative_to(source) or source.is_relative_to(out):
            raise FuseError(f"--save-path {out} and the input {source} must not lie in each other: choose another path")
    if out.exists():
        if not out.is_dir():
            raise FuseError(f"--save-path {out} exists and is not a directory: choose another path")
        if not overwrite:
            raise FuseError(f"--save-path {out} exists: pass --overwrite to replace it, or choose another path")
        if out.is_mount() or Path.cwd().is_relative_to(out):
            raise FuseError(f"--save-path {out} is a mount point or holds the current directory: choose one inside it")
    return out
