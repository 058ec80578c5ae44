"""Stored voices: one folder each, whole or absent, whatever is killed when.

    <folder>/.lock                one writer at a time, also among several servers on one folder
    <folder>/alice/voice.json     name, transcript, length
    <folder>/alice/audio          the file as it was sent
    <folder>/.new-..., .old-...   being written, being removed; what a killed server left is removed at the next start

A voice is written under a temporary name, forced to disk, then renamed: the one step that makes it exist. Renaming
never replaces a voice. Names differ in more than case, so that they are as many on any file system.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import BadField, NoSuchVoice, VoiceConflict
from .fields import DEFAULT_VOICE

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9_.-])?")
_WRITING, _REMOVING = ".new-", ".old-"
_ABOUT, _AUDIO, _LOCK = "voice.json", "audio", ".lock"


@dataclass(frozen=True)
class Voice:
    """What is known of a stored voice."""

    name: str
    text: str | None  # the transcript
    seconds: float
    n_bytes: int
    created: int  # Unix time


class VoiceStore:
    """The voices in one folder. All methods touch the disk: call them in a thread.

    Args:
        folder: made if it is not there.
        max_voices: how many it may hold.
    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, max_voices: int) -> None:
        self._folder = folder
        self._max_voices = max_voices
        folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            for entry in folder.iterdir():
                if entry.name.startswith((_WRITING, _REMOVING)):
                    shutil.rmtree(entry, ignore_errors=True)

    def list_voices(self) -> list[Voice]:
        """All voices, by name."""
        found = (_read_about(entry) for entry in self._entries())
        return sorted((voice for voice in found if voice is not None), key=lambda voice: voice.name.lower())

    def load(self, name: str) -> tuple[Voice, bytes]:
        """A voice and its audio file.

        Raises:
            NoSuchVoice: nobody stored it, or somebody removed it.
        """
        folder = self._folder_of(name)
        voice = _read_about(folder) if folder is not None else None
        try:
            if folder is not None and voice is not None:
                return voice, (folder / _AUDIO).read_bytes()
        except FileNotFoundError:
            pass  # removed in between
        raise _unknown(name)

    def add(self, name: str, audio: bytes, text: str | None, seconds: float) -> Voice:
        """Store a voice; it exists, and will after any crash, when this returns.

        Raises:
            BadField: a name that is none.
            VoiceConflict: the name is taken, or the folder is full.
        """
        check_name(name)
        folder = self._folder_of(name)
        assert folder is not None
        voice = Voice(name, text, seconds, len(audio), int(time.time()))
        with self._locked():
            if folder.exists():
                raise VoiceConflict(f"there is a voice {name!r} already; remove it first", "name", "voice_exists")
            if sum(1 for _ in self._entries()) >= self._max_voices:
                raise VoiceConflict(f"this server keeps {self._max_voices} voices at most", None, "too_many_voices")
            written = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self._folder))
            try:
                _write(written / _AUDIO, audio)
                _write(written / _ABOUT, json.dumps(asdict(voice)).encode())
                _sync(written)
                written.rename(folder)
            except BaseException:
                shutil.rmtree(written, ignore_errors=True)
                raise
            _sync(self._folder)
        return voice

    def remove(self, name: str) -> None:
        """Forget a voice; it is gone at once, and whole.

        Raises:
            NoSuchVoice: it is not there.
        """
        folder = self._folder_of(name)
        if folder is None:
            raise _unknown(name)
        with self._locked():
            leaving = Path(tempfile.mkdtemp(prefix=_REMOVING, dir=self._folder))
            try:
                folder.rename(leaving)
            except OSError:
                leaving.rmdir()
                raise _unknown(name) from None
            _sync(self._folder)
        shutil.rmtree(leaving, ignore_errors=True)

    def _folder_of(self, name: str) -> Path | None:
        """Where a voice of this name lies, always directly in our folder; None: no voice can have the name."""
        return self._folder / name.lower() if _NAME.fullmatch(name) else None

    def _entries(self) -> Iterator[Path]:
        return (entry for entry in self._folder.iterdir() if not entry.name.startswith("."))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The right to write; a process that dies gives it back."""
        with (self._folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def check_name(name: str) -> None:
    """Refuse a name that no voice can have.

    Raises:
        BadField: see the message.
    """
    if not _NAME.fullmatch(name):
        raise BadField(
            "name: 1 to 64 ASCII letters, digits, blanks and any of _ . -; first a letter or digit, last no blank",
            "name",
            "bad_name",
        )
    if name.lower() == DEFAULT_VOICE:
        raise BadField(f"name: {DEFAULT_VOICE!r} means no voice at all; choose another", "name", "bad_name")


def _unknown(name: str) -> NoSuchVoice:
    return NoSuchVoice(f"there is no voice {name[:64]!r}; GET /v1/audio/voices lists them", "voice", "unknown_voice")


def _read_about(folder: Path) -> Voice | None:
    """What a folder says of itself; None if it is no voice of ours, or is being removed."""
    try:
        return Voice(**json.loads((folder / _ABOUT).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Force a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
