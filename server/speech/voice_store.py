"""Stored voices: one folder each, whole or absent, whatever is killed when.

    <folder>/.lock                one writer at a time, also among several servers on one folder
    <folder>/alice/voice.json     name, transcript, length
    <folder>/alice/audio          the file as it was sent
    <folder>/=9f2c.../            a voice whose name is not ASCII: named after a hash, the name stands in voice.json
    <folder>/.new-..., .old-...   being written, being removed; what a killed server left is removed at the next start

A voice is written under a temporary name, forced to disk, then renamed: the one step that makes it exist. Renaming
never replaces a voice: a new clip is written beside the old one, and replacing voice.json, which names it, is the one
step. Names may be of any script. They differ in more than case and in more than how a character is put together, so
that they are as many on any file system.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import BadField, NoSuchVoice, VoiceConflict
from .fields import DEFAULT_VOICE
from .voice_names import VoiceNames

_MAX_NAME_CHARS = 64
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9 _.-]{0,62}[a-z0-9_.-])?")  # a folder's name on any file system
_HASHED = "="  # begins no plain one
_WRITING, _REMOVING = ".new-", ".old-"
_ABOUT, _AUDIO, _LOCK = "voice.json", "audio", ".lock"
_LOOKS = 5
_FILE = "file"  # in voice.json: what its audio is called, once it was replaced


@dataclass(frozen=True)
class Voice:
    """What is known of a stored voice."""

    name: str
    text: str | None  # the transcript
    seconds: float
    n_bytes: int
    created: int  # Unix time


@dataclass(frozen=True)
class StarterVoice:
    """A voice that nobody stored, and nobody can change."""

    about: Voice
    clip: Path


class VoiceStore:
    """The voices in one folder. All methods touch the disk: call them in a thread.

    Args:
        folder: made if it is not there.
        max_voices: how many it may hold.
        names: what other names mean.
        starters: voices that are there without being stored, by `key_of` their names.
    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(
        self,
        folder: Path,
        max_voices: int,
        names: VoiceNames | None = None,
        starters: Mapping[str, StarterVoice] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._starters = starters
        self._names = names or VoiceNames()
        self._max_voices = max_voices
        folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            for entry in folder.iterdir():
                if entry.name.startswith((_WRITING, _REMOVING)):
                    shutil.rmtree(entry, ignore_errors=True)

    def list_voices(self) -> list[Voice]:
        """All voices, by name."""
        found = (_read_about(entry) for entry in self._entries())
        voices = {key: starter.about for key, starter in self._starters.items()}
        voices |= {key_of(about[0].name): about[0] for about in found if about is not None}
        return [voices[key] for key in sorted(voices)]

    def is_starter(self, voice: Voice) -> bool:
        """Whether a voice is one that nobody stored."""
        starter = self._starters.get(key_of(voice.name))
        return starter is not None and starter.about == voice

    def meant_by(self, name: str) -> str:
        """The name of the voice that is meant by a name; itself where it is stored, or means nothing else."""
        folder = self._folder_of(name)
        if (folder is not None and folder.exists()) or key_of(name) in self._starters:
            return name
        return self._names.meant_by(name) or name

    def about(self, name: str) -> Voice:
        """What is known of a voice.

        Raises:
            NoSuchVoice: see `load`.
        """
        folder = self._folder_of(name)
        found = _read_about(folder) if folder is not None else None
        if found is not None:
            return found[0]
        if starter := self._starters.get(key_of(name)):
            return starter.about
        raise _unknown(name)

    def load(self, name: str) -> tuple[Voice, bytes]:
        """A voice and its audio file.

        Raises:
            NoSuchVoice: nobody stored it, or somebody removed it.
        """
        folder = self._folder_of(name)
        for _ in range(_LOOKS):
            found = _read_about(folder) if folder is not None else None
            if folder is None or found is None:
                break
            voice, file = found
            with suppress(FileNotFoundError):  # removed or replaced in between
                return voice, (folder / file).read_bytes()
        if starter := self._starters.get(key_of(name)):
            return starter.about, starter.clip.read_bytes()
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
        voice = Voice(_composed(name), text, seconds, len(audio), int(time.time()))
        with self._locked():
            if folder.exists():
                raise VoiceConflict(
                    f"there is a voice {name!r} already; replace it (PUT) or remove it first", "name", "voice_exists"
                )
            self._make(folder, voice, audio)
        return voice

    def put(self, name: str, audio: bytes, text: str | None, seconds: float) -> tuple[Voice, bool]:
        """Store a voice, in the place of one that has its name, if there is one; says whether there was none.

        Whoever loads it meanwhile gets the one or the other, whole, and so does a server that is started after a crash.

        Raises:
            BadField, VoiceConflict: as `add`.
        """
        check_name(name)
        folder = self._folder_of(name)
        assert folder is not None
        voice = Voice(_composed(name), text, seconds, len(audio), int(time.time()))
        with self._locked():
            found = _read_about(folder)
            if found is None and folder.exists():
                raise VoiceConflict(f"the folder of a voice {name!r} holds something else", "name", "voice_exists")
            if found is None:
                self._make(folder, voice, audio)
                return voice, True
            file = f"{_AUDIO}-{secrets.token_hex(8)}"
            _write(folder / file, audio)
            _write(folder / f"{_ABOUT}{_WRITING}", json.dumps({**asdict(voice), _FILE: file}).encode())
            _sync(folder)
            (folder / f"{_ABOUT}{_WRITING}").replace(folder / _ABOUT)
            _sync(folder)
            for entry in folder.iterdir():  # also what a server that was killed here has left
                if entry.name not in (_ABOUT, file):
                    entry.unlink(missing_ok=True)
        return voice, False

    def _make(self, folder: Path, voice: Voice, audio: bytes) -> None:
        """Let a voice exist that does not; under the lock."""
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

    def remove(self, name: str) -> None:
        """Forget a voice; it is gone at once, and whole.

        Raises:
            NoSuchVoice: it is not there.
            VoiceConflict: it is not stored, but there from the start.
        """
        folder = self._folder_of(name)
        if folder is None:
            raise _unknown(name)
        if not folder.exists() and key_of(name) in self._starters:
            raise VoiceConflict(
                f"the voice {name!r} comes with the server, and stays; store one of this name to have another",
                "name",
                "starter_voice",
            )
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
        if not _can_be_name(name):
            return None
        key = key_of(name)
        if _PLAIN.fullmatch(key):
            return self._folder / key
        return self._folder / f"{_HASHED}{hashlib.sha256(key.encode()).hexdigest()[:32]}"

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
    if not _can_be_name(name):
        raise BadField(
            f"name: 1 to {_MAX_NAME_CHARS} letters of any script, digits, blanks and any of _ . -; first a letter or "
            "digit, last no blank",
            "name",
            "bad_name",
        )
    if key_of(name) == DEFAULT_VOICE:
        raise BadField(f"name: {DEFAULT_VOICE!r} means no voice at all; choose another", "name", "bad_name")


def _can_be_name(name: str) -> bool:
    composed = _composed(name)
    return (
        0 < len(composed) <= _MAX_NAME_CHARS
        and composed[0].isalnum()
        and composed[-1] != " "
        and all(c in " _.-" or c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") for c in composed)
    )


def _composed(name: str) -> str:
    """A name with every letter in one piece, as far as Unicode has it so: file systems and keyboards differ."""
    return unicodedata.normalize("NFC", name)


def key_of(name: str) -> str:
    """The same for names that are the same voice's: written in other case, width or composition."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _unknown(name: str) -> NoSuchVoice:
    lists = "GET /v1/audio/voices lists them, and the server's --voice-alias says what other names mean"
    return NoSuchVoice(f"there is no voice {name[:64]!r}; {lists}", "voice", "unknown_voice")


def _read_about(folder: Path) -> tuple[Voice, str] | None:
    """What a folder says of itself, and its audio file's name; None if it is no voice of ours, or is being removed."""
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
        file = about.pop(_FILE, _AUDIO)
        return (Voice(**about), file) if Path(file).name == file else None
    except (OSError, ValueError, TypeError, AttributeError):
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
