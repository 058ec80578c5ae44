"""Datasets of invented speech that fit the golden checkpoints, in memory."""

from pathlib import Path
from typing import Any

import numpy as np
from golden_data import GOLDEN
from transformers import Qwen2Tokenizer

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.fuse.json_file import read_json
from sglang_moss.request.template import TTSD, Template
from sglang_moss.training.example import Example
from sglang_moss.training.rows import prompt_rows

WORDS = ["tea", "rain", "road", "home", "nine", "train", "fox", "dog", "film", "story", "calm", "wind"]


def golden_tokens(checkpoint: Path = GOLDEN / "ttsd") -> tuple[Any, SpecialTokens]:
    """Tokenizer and ids of a checkpoint."""
    tokenizer = Qwen2Tokenizer.from_pretrained(str(checkpoint))
    return tokenizer, special_tokens(read_json(checkpoint / "config.json").content)


class InventedSpeech:
    """Examples by number: words, codes and references that a seed decides."""

    def __init__(self, n: int, seed: int = 0, max_frames: int = 24, template: Template = TTSD) -> None:
        tokenizer, self.tokens = golden_tokens()
        rng = np.random.default_rng(seed)
        self._examples = [self._invent(i, rng, max_frames) for i in range(n)]
        self.ids = [example.id for example in self._examples]
        self.n_frames = np.array([len(example.codes) for example in self._examples], np.int32)
        prompts = [prompt_rows(example, tokenizer, self.tokens, template) for example in self._examples]
        self.n_prompt_rows = np.array(list(map(len, prompts)), np.int32)

    def _invent(self, i: int, rng: np.random.Generator, max_frames: int) -> Example:
        def codes(n: int) -> np.ndarray:
            return rng.integers(0, self.tokens.pad_code, (n, self.tokens.n_vq)).astype(np.uint16)

        text = "[S1] " + " ".join(rng.choice(WORDS, rng.integers(1, 6)))
        references = None if i % 3 else (codes(int(rng.integers(1, 6))),)
        return Example(f"x{i}", {"text": text}, codes(int(rng.integers(1, max_frames + 1))), references)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i: int) -> Example:
        return self._examples[i]
