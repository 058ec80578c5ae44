"""The texts of the training speech: sentence i of a seed is always the same, whoever asks for it and when.

    quoted      sentences of WordNet, as they are
    replaced    the same, some words replaced by others of their class: every known word comes up, in a place of its own
    everyday    made of templates
    fragments   a word or a few, in any order: what stands alone in dialogues, and what nobody can guess from the rest

Rare words are drawn more often than they are used, by the square root of their frequency.
"""

import lzma
import random
import re
from bisect import bisect
from collections import defaultdict
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from .everyday import everyday_sentence

TEXT = Path(__file__).parent / "text"
KINDS = {"quoted": 0.12, "replaced": 0.40, "everyday": 0.18, "fragments": 0.30}
_REPLACED_SHARE = 0.45
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_ASKS = re.compile(
    r"(?:who|what|why|when|where|how|which|is|are|was|were|do|does|did|can|could|will|would|shall|should|has|have|may"
    r"|must|isn't|aren't|don't|didn't|can't|won't)\b",
    re.IGNORECASE,
)
_AN = re.compile(r"\b([Aa])n? (?=([a-z]))")
_LONGEST = 130  # characters
_TWO_SHARE = 0.25  # of turns


def read_text(name: str) -> list[str]:
    """Lines of a committed list."""
    return lzma.decompress((TEXT / f"{name}.txt.xz").read_bytes()).decode().split("\n")


class Sentences:
    """Sentences by number."""

    def __init__(self, seed: int, left_out: frozenset[str] = frozenset()) -> None:
        """
        Args:
            seed: another one gives other sentences.
            left_out: sentences that are not to be made, as `bare` has them.
        """
        self._seed = seed
        self._left_out = left_out
        self._examples = [e for e in read_text("examples") if len(e) <= _LONGEST]
        self._words: list[str] = []
        self._class_of: dict[str, str] = {}
        members: dict[str, list[str]] = defaultdict(list)
        weights: dict[str, list[float]] = defaultdict(list)
        for line in read_text("words"):
            word, share, kind = line.split(" ")
            self._words.append(word)
            if kind != "-":
                self._class_of[word] = kind
                members[kind].append(word)
                weights[kind].append(10 ** (float(share) / 2))
        self._members = {kind: (words, list(accumulate(weights[kind]))) for kind, words in members.items()}

    def __getitem__(self, i: int) -> str:
        """Sentence `i` >= 0, capitalised, with its stop."""
        rng = random.Random(f"{self._seed} {i}")
        while True:
            kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
            text = getattr(self, f"_{kind}")(rng)
            if bare(text) not in self._left_out and len(text) <= _LONGEST:
                return text

    def turn(self, i: int) -> str:
        """What somebody says in a breath or two: one sentence, or two of them."""
        rng = random.Random(f"turn {self._seed} {i}")
        first = self[2 * i]
        second = self[2 * i + 1] if rng.random() < _TWO_SHARE else ""
        return f"{first} {second}" if second and len(first) + len(second) < _LONGEST else first

    def _quoted(self, rng: random.Random) -> str:
        return _finished(rng.choice(self._examples), rng)

    def _everyday(self, rng: random.Random) -> str:
        return everyday_sentence(rng)

    def _replaced(self, rng: random.Random) -> str:
        text = _WORD.sub(lambda found: self._other(found[0], rng), rng.choice(self._examples))
        return _finished(_AN.sub(lambda a: a[1] + ("n " if a[2] in "aeiou" else " "), text), rng)

    def _fragments(self, rng: random.Random) -> str:
        n_words = rng.choice((1, 1, 2, 3, 4, 5, 6, 8))
        words = [rng.choice(self._words) for _ in range(n_words)]
        between = rng.choice((" ", ", ")) if n_words > 1 else " "
        return _finished(between.join(words), rng)

    def _other(self, word: str, rng: random.Random) -> str:
        kind = self._class_of.get(word)
        if kind is None or rng.random() > _REPLACED_SHARE:
            return word
        words, totals = self._members[kind]
        return words[bisect(totals, rng.random() * totals[-1])]


def bare(text: str) -> str:
    """Words alone, in lower case: what a recogniser hears."""
    return " ".join(_WORD.findall(text.lower()))


@lru_cache(maxsize=1)
def known_words() -> frozenset[str]:
    """In lower case."""
    return frozenset(line.partition(" ")[0].lower() for line in read_text("words"))


def _finished(text: str, rng: random.Random) -> str:
    """With a capital and a stop."""
    text = text[0].upper() + text[1:]
    if text[-1] in ".?!":
        return text
    if _ASKS.match(text):
        return text + "?"
    return text + rng.choices(".!?", (0.86, 0.09, 0.05))[0]
