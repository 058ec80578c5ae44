"""Voices that the server keeps, as its `/v1/audio/voices` says them."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .errors import UnusableAnswer

VOICES_PATH = "/v1/audio/voices"


@dataclass(frozen=True)
class Voice:
    """A stored voice.

    Attributes:
        name: by which `speech` takes it.
        text: what is said in its clip; without it the voice can be cloned, but not continued.
        seconds: length of the clip.
        created: Unix time.
    """

    name: str
    text: str | None
    seconds: float
    created: int

    @classmethod
    def from_answer(cls, answer: Any) -> "Voice":
        """Raises UnusableAnswer where a field is missing."""
        match answer:
            case {"name": str(name), "seconds": float() | int() as seconds, "created": int(created), **_rest}:
                return cls(name, answer.get("text"), seconds, created)
        raise UnusableAnswer("the answer tells of no voice: does this server serve MOSS-TTSD?")


def voices_in(answer: Any) -> list[Voice]:
    """Raises UnusableAnswer where the answer holds no list of voices."""
    match answer:
        case {"data": list(voices)}:
            return [Voice.from_answer(voice) for voice in voices]
    raise UnusableAnswer("the answer holds no list of voices: does this server serve MOSS-TTSD?")


def voice_path(name: str) -> str:
    return f"{VOICES_PATH}/{quote(name, safe='')}"
