"""Speech to an audio file, as it comes: any format by the file's suffix, and no file before the speech is whole."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from av.error import FFmpegError

from sglang_moss.audio.formats import FILE_FORMATS, FileEncoder

STDOUT = Path("-")
_FORMATS = {  # by suffix
    ".wav": FILE_FORMATS["wav"],
    ".mp3": FILE_FORMATS["mp3"],
    ".flac": FILE_FORMATS["flac"],
    ".opus": FILE_FORMATS["opus"],
    ".ogg": FILE_FORMATS["opus"],
    ".aac": FILE_FORMATS["aac"],
    ".m4a": FILE_FORMATS["m4a"],
}


class AudioFile:
    """Writes one file: under a name of its own beside `path`, which becomes `path` when the `with` block is left whole.

    Args:
        path: with one of the known suffixes; replaced if it exists. `-` is standard output, as WAV.
        sample_rate: of the speech, in Hz.
    Raises:
        ValueError: see `check_writable`.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        check_writable(path)
        found = _FORMATS[".wav" if path == STDOUT else path.suffix.lower()]
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        target = _Pipe() if path == STDOUT else str(self._beside)
        try:
            self._file = FileEncoder(target, found, sample_rate, growing=False)
        except BaseException:  # Ctrl-C among them: nobody can leave a `with` block that was not entered
            self._beside.unlink(missing_ok=True)
            raise

    def write(self, pcm: bytes) -> None:
        """Add 16-bit little-endian mono samples."""
        self._file.encode(np.frombuffer(pcm, "<i2"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._file.finish()
                if self._path != STDOUT:
                    self._beside.replace(self._path)
            else:
                with suppress(FFmpegError):  # what it was left for matters more
                    self._file.close()
        finally:
            self._beside.unlink(missing_ok=True)


class _Pipe:
    """Standard output as a file that cannot seek: the lengths in the WAV's header stay open."""

    def write(self, data: bytes, /) -> int:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return len(data)


def check_writable(path: Path) -> None:
    """Refuse what could not be written, before the server works for nothing.

    Raises:
        ValueError: no such folder, a folder itself, or a suffix that is not known.
    """
    if path == STDOUT:
        return
    if path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder; name a file in it, such as {path / 'speech.wav'}")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: the suffix says the format; known are {', '.join(_FORMATS)}")
