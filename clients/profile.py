"""Which model of the family a server has, as its `/v1/audio/profile` says it."""

from dataclasses import dataclass
from typing import Any

from .errors import UnusableAnswer

PROFILE_PATH = "/v1/audio/profile"


@dataclass(frozen=True)
class ServerProfile:
    """What is served.

    Attributes:
        name: `ttsd`, `tts`, `voice` or `sound`.
        model: what its makers call it.
        fields: of a prompt, by their names in `Settings` (there `tokens` is `duration_seconds`) and the text.
        required: those that a request must have.
        max_references: clips that a request may send.
    """

    name: str
    model: str
    fields: tuple[str, ...]
    required: tuple[str, ...]
    max_references: int

    @classmethod
    def from_answer(cls, answer: Any) -> "ServerProfile":
        """Raises UnusableAnswer where a field is missing."""
        match answer:
            case {
                "name": str(name),
                "model": str(model),
                "fields": list(fields),
                "required": list(required),
                "max_references": int(max_references),
                **_rest,
            }:
                return cls(name, model, tuple(fields), tuple(required), max_references)
        raise UnusableAnswer("the answer tells of no model: does this server serve the MOSS-TTS family?")
