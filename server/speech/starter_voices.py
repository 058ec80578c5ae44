"""Voices that are there from the start: every client finds them, and none can change them.

    <folder>/NAME.wav     a clip; also .flac, .mp3, .ogg
    <folder>/NAME.txt     what is said in it; without it the voice can be cloned, but not continued

Those of the package lie in `starters`. A voice that somebody stores under the name of one goes before it.
"""

import logging
from pathlib import Path

import soundfile

from sglang_moss.audio.loading import ReferenceLimits

from ..errors import BadField
from .voice_store import StarterVoice, Voice, check_name, key_of

logger = logging.getLogger(__name__)

_NONE = "none"
_SHIPPED = Path(__file__).parent / "starters"
_CLIPS = (".wav", ".flac", ".mp3", ".ogg")


def starters_folder(named: str | None) -> Path | None:
    """Where the voices lie; None: there are to be none.

    Args:
        named: the value of `--starter-voices`, which has been checked.
    """
    if named is None:
        return _SHIPPED
    return None if named == _NONE else Path(named).expanduser()


def read_starters(folder: Path | None, limits: ReferenceLimits) -> dict[str, StarterVoice]:
    """The voices of a folder, by `key_of` their names. What cannot be one is left out, and the log says so."""
    found: dict[str, StarterVoice] = {}
    for path in sorted(folder.iterdir()) if folder is not None else ():
        if path.suffix.lower() not in _CLIPS:
            continue
        try:
            found[key_of(path.stem)] = _read(path, limits)
        except (BadField, OSError, ValueError, soundfile.SoundFileError) as error:
            logger.warning("%s is no starter voice: %s", path, error)
    return found


def _read(path: Path, limits: ReferenceLimits) -> StarterVoice:
    check_name(path.stem)
    status = path.stat()
    seconds = soundfile.info(path).duration
    if seconds > limits.max_seconds or status.st_size > limits.max_bytes:
        raise ValueError(f"a clip has {limits.max_seconds:g} s and {limits.max_bytes} bytes at most")
    transcript = path.with_suffix(".txt")
    text = " ".join(transcript.read_text("utf-8").split()) if transcript.exists() else ""
    about = Voice(path.stem, text or None, seconds, status.st_size, int(status.st_mtime))
    return StarterVoice(about, path)
