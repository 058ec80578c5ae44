"""The turns of a script, and how long they take to speak.

Nobody knows how long a text will sound before it is spoken, so lengths are estimated, rather too long than too short.
"""

import re
from dataclasses import dataclass

from sglang_moss.request.text import SPEAKER_TAG, has_words

# The rule of thumb. English is read at 13 to 17 letters a second, blanks included; Chinese, Japanese and Korean at 4 to
# 5 characters.
LETTERS_PER_SECOND = 13.0
_WIDE_PER_SECOND = 4.0
TURN_SECONDS = 0.3  # the pause between two turns

_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class Turn:
    """What one speaker says until the next one does."""

    speaker: int | None  # None: words in front of the first tag
    words: str

    def __str__(self) -> str:
        return self.words if self.speaker is None else f"[S{self.speaker}]{self.words}"


def turns_of(script: str) -> list[Turn]:
    """The turns of a checked script, `[S1] ... [S2] ...`, in order; those without a word are left out."""
    first, *rest = SPEAKER_TAG.split(script)
    turns = [Turn(None, first.strip())]
    turns += [Turn(int(speaker), words.strip()) for speaker, words in zip(rest[::2], rest[1::2], strict=True)]
    return [turn for turn in turns if has_words(turn.words)]


def speech_seconds(words: str) -> float:
    """How long one turn takes, by the rule of thumb."""
    n_wide = count_wide(words)
    return TURN_SECONDS + n_wide / _WIDE_PER_SECOND + (len(words) - n_wide) / LETTERS_PER_SECOND


def count_wide(words: str) -> int:
    """Characters of scripts that write a syllable or a word with each."""
    return len(_WIDE.findall(words))
