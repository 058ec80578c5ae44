"""Invented dialogues of mixed length, as fine-tuning meets them: two speakers, each with a clip, a text, and codes.

Lengths are log-normal: half are shorter than the median, few are much longer. What is said is noise; how many rows it
takes is not: some 3.3 words a second with the tokenizer of the real checkpoint, and as many rows here.
"""

from dataclasses import dataclass

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.request.prompt import Tokenizer
from sglang_moss.request.template import TTSD

from ...training.example import Example
from ...training.rows import prompt_rows

_FRAMES_PER_S = 12.5
_TEXT_ROWS_PER_S = 3.3
_CLIP_S = 5.0


@dataclass(frozen=True)
class Lengths:
    """Of dialogues, in seconds."""

    median_s: float = 30.0
    sigma: float = 0.9
    longest_s: float = 600.0
    shortest_s: float = 0.0


# By name: what users have, cut to some minutes; and talks of up to ten minutes beside it.
LENGTHS = {"mixed": Lengths(sigma=0.7, shortest_s=4.0, longest_s=180.0), "long": Lengths()}


class Dialogues:
    """Examples by number, each made when it is asked for; `sglang_moss.training.loading.Examples`."""

    def __init__(self, n: int, tokenizer: Tokenizer, tokens: SpecialTokens, lengths: Lengths, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        drawn = lengths.median_s * np.exp(lengths.sigma * rng.standard_normal(n))
        seconds = np.clip(drawn, lengths.shortest_s, lengths.longest_s)
        self._tokens = tokens
        self._seed = seed
        self._word = _word_of_one_row(tokenizer)
        self.n_frames = np.maximum(1, seconds * _FRAMES_PER_S).astype(np.int32)
        self._n_words = np.maximum(1, seconds * _TEXT_ROWS_PER_S).astype(np.int32)
        self.ids = [f"dialogue {i}" for i in range(n)]
        # Every prompt is one of a single word and as many rows more as it has words more.
        one = Example("", self._fields(1), *self._sound(0))
        self.n_prompt_rows = (len(prompt_rows(one, tokenizer, tokens, TTSD)) + self._n_words - 1).astype(np.int32)

    def __len__(self) -> int:
        return len(self.n_frames)

    def __getitem__(self, i: int) -> Example:
        return Example(self.ids[i], self._fields(int(self._n_words[i])), *self._sound(i))

    def _fields(self, n_words: int) -> dict[str, str | int]:
        return {"text": "[S1]" + self._word * n_words}

    def _sound(self, i: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        rng = np.random.default_rng([self._seed, i])

        def codes(n_frames: int) -> np.ndarray:
            return rng.integers(0, self._tokens.pad_code, (n_frames, self._tokens.n_vq), dtype=np.uint16)

        clip = int(_CLIP_S * _FRAMES_PER_S)
        return codes(int(self.n_frames[i])), (codes(clip), codes(clip))


def _word_of_one_row(tokenizer: Tokenizer) -> str:
    """A word that takes one row wherever it stands."""
    for word in (" the", " a", " b", " c"):
        if [len(tokenizer.encode(word * n, add_special_tokens=False)) for n in (1, 2, 7)] == [1, 2, 7]:
            return word
    raise ValueError("this tokenizer has no word of one row among a few of English")
