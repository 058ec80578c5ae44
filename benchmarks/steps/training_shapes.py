"""Shapes that fine-tuning is measured with, as `config.json` of a language model without weights.

Source of the shapes: MOSS-TTSD v1.0 (8 B), Qwen3-1.7B under MOSS-VoiceGenerator; n_vq is TTSD's in both.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12_288,
    "vocab_size": 155_648,
}
_1_7B = {
    "hidden_size": 2048,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 6144,
    "vocab_size": 155_648,
}


@dataclass(frozen=True)
class TrainingCase:
    """What is trained, and how."""

    method: str
    language: dict[str, int] | None  # of the backbone; None: the golden one


CASES = {
    "lora-8b": TrainingCase("lora", _8B),
    "full-8b": TrainingCase("full", _8B),
    "full-1.7b": TrainingCase("full", _1_7B),
    "lora-1.7b": TrainingCase("lora", _1_7B),
    "tiny": TrainingCase("full", None),
    "tiny-lora": TrainingCase("lora", None),
}


def write_shape(path: Path, golden: Path, case: TrainingCase, n_layers: int | None) -> None:
    """Write a case's `config.json` and the golden tokenizer; `n_layers` in place of all."""
    path.mkdir(parents=True)
    config = json.loads((golden / "ttsd" / "config.json").read_text())
    language = config["language_config"] | (case.language or {})
    if n_layers is not None:
        language["num_hidden_layers"] = n_layers
    n = language["num_hidden_layers"]
    language |= {"layer_types": ["full_attention"] * n, "max_window_layers": n}
    config["language_config"] = language
    if case.language is not None:
        config |= {"hidden_size": language["hidden_size"], "vocab_size": language["vocab_size"]}
        config |= {"audio_vocab_size": 1024, "audio_pad_code": 1024}
    (path / "config.json").write_text(json.dumps(config))
    for name in _TOKENIZER_FILES:
        shutil.copy(golden / "ttsd" / name, path / name)
