"""What names of voices mean that nobody has stored: other names for voices, and a voice for OpenAI's names."""

from collections.abc import Iterable
from dataclasses import dataclass, field

# https://platform.openai.com/docs/guides/text-to-speech: what stock clients send unless told otherwise
OPENAI_VOICES = frozenset(
    "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class VoiceNames:
    """By the server's arguments; without them a name is a stored voice or an error.

    Attributes:
        aliases: by name in small letters, the voice that is meant.
        default: what every name of OpenAI's means that is neither stored nor an alias; None: nothing.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    default: str | None = None

    @classmethod
    def of(cls, aliases: Iterable[str], default: str | None) -> "VoiceNames":
        """From NAME=VOICE each.

        Raises:
            ValueError: something else, or two for one name.
        """
        found: dict[str, str] = {}
        for alias in aliases:
            name, equals, voice = (part.strip() for part in alias.partition("="))
            if not (name and equals and voice):
                raise ValueError(f"--voice-alias: expected NAME=VOICE such as alloy=alice, got {alias!r}")
            if found.setdefault(name.lower(), voice) != voice:
                raise ValueError(f"--voice-alias: {name} stands for {found[name.lower()]} and for {voice}; keep one")
        return cls(found, default)

    def meant_by(self, name: str) -> str | None:
        """What a name means that no stored voice has; None: nothing."""
        if alias := self.aliases.get(name.lower()):
            return alias
        return self.default if name.lower() in OPENAI_VOICES else None
