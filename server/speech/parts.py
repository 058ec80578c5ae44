"""Long scripts: their division into parts that are spoken one after the other, by how long they will take."""

import bisect
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sglang_moss.request.turns import LETTERS_PER_SECOND, Turn, count_wide, speech_seconds

# A tokenizer makes a token of 3 to 5 Latin letters, and of about one wide character.
_LETTERS_PER_TOKEN = 3.0
_TURN_TOKENS = 4  # of a speaker tag

_SENTENCE_END = re.compile(r"[。！？…]|[.!?…][\"'”’)\]]*(?=\s)")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class PartLimit:
    """What one part may hold, by estimate."""

    seconds: float
    rows: float
    frames_per_second: float

    @property
    def letters(self) -> int:
        """No turn with more characters fits, whatever they are; looking at more of them would be in vain."""
        return int(self.seconds * LETTERS_PER_SECOND) + 1

    def holds(self, seconds: float, tokens: float) -> bool:
        return seconds <= self.seconds and tokens + seconds * self.frames_per_second <= self.rows


def text_tokens(words: str) -> float:
    """How many rows the text of one turn takes, by the rule of thumb."""
    n_wide = count_wide(words)
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
