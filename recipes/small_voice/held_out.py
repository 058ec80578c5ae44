"""Sentences and dialogues that are never trained on."""

import random
from functools import lru_cache
from pathlib import Path

from .sentences import bare

_PATH = Path(__file__).parent / "held_out.txt"


@lru_cache(maxsize=1)
def judged_sentences() -> tuple[str, ...]:
    """Fifty everyday sentences."""
    return tuple(_PATH.read_text(encoding="utf-8").split("\n")[:-1])


def held_out_sentences() -> frozenset[str]:
    """The same as bare words."""
    return frozenset(map(bare, judged_sentences()))


def judged_dialogues(n: int, seed: int = 0) -> list[list[str]]:
    """Dialogues of 2 to 4 turns, made of the fifty."""
    rng = random.Random(seed)
    return [rng.sample(judged_sentences(), rng.randint(2, 4)) for _ in range(n)]
