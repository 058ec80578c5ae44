"""Rows of a prompt besides its text and its references, which depend on neither."""

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.request.prompt import Tokenizer
from sglang_moss.request.template import TTSD
from sglang_moss.training.example import Example
from sglang_moss.training.rows import prompt_rows


class Overheads:
    """Rows of a prompt besides its text and references."""

    def __init__(self, tokenizer: Tokenizer, tokens: SpecialTokens) -> None:
        self._tokenizer, self._tokens = tokenizer, tokens
        self._known: dict[tuple[tuple[int, ...], int | None], int] = {}

    def of(self, tagged: tuple[int, ...], n_references: int | None) -> int:
        key = (tagged, n_references)
        if key not in self._known:
            text = "".join(f"[S{k + 1}]a." for k in tagged) or "a."
            clip = np.zeros((1, self._tokens.n_vq), np.int32)
            references = None if n_references is None else (clip,) * n_references
            rows = prompt_rows(Example("", {"text": text}, clip, references), self._tokenizer, self._tokens, TTSD)
            n_text = len(self._tokenizer.encode(text, add_special_tokens=False))
            self._known[key] = len(rows) - n_text - (n_references or 0) * self._tokens.n_vq
        return self._known[key]
