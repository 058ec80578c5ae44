"""Examples of a golden directory: what upstream's `prepare_data.py` wrote, and the checkpoint that they are for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Qwen2Tokenizer

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.request.prompt import Tokenizer
from sglang_moss.request.template import FIELDS, TEMPLATES, Template

from ..example import Example
from ..rows import labels_of, prompt_rows, target_rows


@dataclass(frozen=True)
class GoldenRows:
    """One example as rows."""

    rows: np.ndarray  # [S, 1 + n_vq] int32
    n_prompt_rows: int
    labels: np.ndarray  # [S - 1, 1 + n_vq] int32


class GoldenRecords:
    """The prepared records, each under the templates that the stored keys name (`tts.plain`)."""

    def __init__(self, directory: Path, checkpoint: Path) -> None:
        """Read `prepared.jsonl` of `directory`, and the tokenizer and ids of `checkpoint`."""
        lines = (directory / "prepared.jsonl").read_text(encoding="utf-8").splitlines()
        self.examples = {example.id: example for example in map(_example, map(json.loads, lines))}
        self.tokenizer: Tokenizer = Qwen2Tokenizer.from_pretrained(str(checkpoint))
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        self.tokens: SpecialTokens = special_tokens(config)

    def rows(self, key: str) -> GoldenRows:
        """Rows and labels of `TEMPLATE.ID`."""
        template, _, example_id = key.partition(".")
        return self._rows(self.examples[example_id], TEMPLATES[template])

    def many(self, keys: Iterable[str]) -> list[GoldenRows]:
        """Rows of several."""
        return [self.rows(key) for key in keys]

    def _rows(self, example: Example, template: Template) -> GoldenRows:
        prompt = prompt_rows(example, self.tokenizer, self.tokens, template)
        rows = np.concatenate([prompt, target_rows(example.codes, self.tokenizer, self.tokens)])
        return GoldenRows(rows, len(prompt), labels_of(rows, len(prompt), self.tokens.pad_code))


def _example(record: dict[str, Any]) -> Example:
    references = record.get("reference_audio_codes")
    if references is None and "ref_audio_codes" in record:
        references = [record["ref_audio_codes"]]
    return Example(
        id=record["id"],
        fields={name: record[name] for name in FIELDS if record.get(name) is not None},
        codes=np.array(record["audio_codes"], np.int32),
        references=None
        if references is None
        else tuple(None if codes is None else np.array(codes, np.int32) for codes in references),
    )
