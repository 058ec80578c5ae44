"""Long scripts: turns, how long they take, and their division into parts that are spoken one after the other.

Nobody knows how long a text will sound before it is spoken, so lengths are estimated, rather too long than too short.
"""

import bisect
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sglang_moss.request.text import SPEAKER_TAG, has_words

# The rule of thumb. English is read at 13 to 17 letters a second, blanks included; Chinese, Japanese and Korean at 4 to
# 5 characters. A tokenizer makes a token of 3 to 5 Latin letters, and of about one wide character.
_LETTERS_PER_SECOND = 13.0
_WIDE_PER_SECOND = 4.0
_TURN_SECONDS = 0.3  # the pause between two turns
_LETTERS_PER_TOKEN = 3.0
_TURN_TOKENS = 4  # of a speaker tag

_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff]"
)
_SENTENCE_END = re.compile(r"[。！？…]|[.!?…][\"'”’)\]]*(?=\s)")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class Turn:
    """What one speaker says until the next one does."""

    speaker: int | None  # None: words in front of the first tag
    words: str

    def __str__(self) -> str:
        return self.words if self.speaker is None else f"[S{self.speaker}]{self.words}"


@dataclass(frozen=True)
class PartLimit:
    """What one part may hold, by estimate."""

    seconds: float
    rows: float
    frames_per_second: float

    @property
    def letters(self) -> int:
        """No turn with more characters fits, whatever they are; looking at more of them would be in vain."""
        return int(self.seconds * _LETTERS_PER_SECOND) + 1

    def holds(self, seconds: float, tokens: float) -> bool:
        return seconds <= self.seconds and tokens + seconds * self.frames_per_second <= self.rows


def turns_of(script: str) -> list[Turn]:
    """The turns of a checked script, `[S1] ... [S2] ...`, in order; those without a word are left out."""
    first, *rest = SPEAKER_TAG.split(script)
    turns = [Turn(None, first.strip())]
    turns += [Turn(int(speaker), words.strip()) for speaker, words in zip(rest[::2], rest[1::2], strict=True)]
    return [turn for turn in turns if has_words(turn.words)]


def speech_seconds(words: str) -> float:
    """How long one turn takes, by the rule of thumb."""
    n_wide = len(_WIDE.findall(words))
    return _TURN_SECONDS + n_wide / _WIDE_PER_SECOND + (len(words) - n_wide) / _LETTERS_PER_SECOND


def text_tokens(words: str) -> float:
    """How many rows the text of one turn takes, by the rule of thumb."""
    n_wide = len(_WIDE.findall(words))
    return _TURN_TOKENS + n_wide + (len(words) - n_wide) / _LETTERS_PER_TOKEN


def plan_parts(turns: Sequence[Turn], opening: PartLimit, others: PartLimit) -> list[list[Turn]]:
    """Divide a script between turns; a turn that no part can hold is cut too, at the end of a sentence if it has one.

    Args:
        turns: at least one.
        opening: limit of the first part.
        others: limit of every other part.
    Returns:
        Parts of at least one turn each. Every turn comes once, in order; the pieces of one that was cut follow each
        other. Every part keeps its limit, but one that is a single character.
    """
    waiting = deque(turns)
    parts: list[list[Turn]] = [[]]
    seconds = tokens = 0.0
    while waiting:
        turn, limit = waiting.popleft(), others if len(parts) > 1 else opening
        looked_at = turn.words[: limit.letters + 1]
        turn_seconds, turn_tokens = speech_seconds(looked_at), text_tokens(looked_at)
        if limit.holds(seconds + turn_seconds, tokens + turn_tokens):
            parts[-1].append(turn)
            seconds, tokens = seconds + turn_seconds, tokens + turn_tokens
        elif parts[-1]:
            parts.append([])
            waiting.appendleft(turn)
            seconds = tokens = 0.0
        else:
            head, rest = _cut(turn, limit)
            parts[-1].append(head)
            if rest is not None:
                waiting.appendleft(rest)
                parts.append([])
    return [part for part in parts if part]


def _cut(turn: Turn, limit: PartLimit) -> tuple[Turn, Turn | None]:
    """The longest beginning of a turn that the limit holds, and the rest of it."""
    words = turn.words
    most = min(len(words), limit.letters)

    def too_long(n: int) -> bool:
        return not limit.holds(speech_seconds(words[:n]), text_tokens(words[:n]))

    n_fit = max(1, bisect.bisect_left(range(most + 1), True, key=too_long) - 1)
    ends = [match.end() for match in _SENTENCE_END.finditer(words[: n_fit + 1]) if match.end() <= n_fit]
    blanks = [match.start() for match in _BLANK.finditer(words[: n_fit + 1]) if match.start() <= n_fit]
    at = (ends or blanks or [n_fit])[-1]
    head, rest = words[:at].strip(), words[at:].strip()
    return Turn(turn.speaker, head), Turn(turn.speaker, rest) if rest else None
