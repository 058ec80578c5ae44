"""Datasets of invented speech that fit the golden checkpoints, in memory and on disk."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from golden_data import GOLDEN
from transformers import Qwen2Tokenizer

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.fuse.json_file import read_json
from sglang_moss.request.template import TTSD, Template
from sglang_moss.training.data.checkpoint import Checkpoint
from sglang_moss.training.data.shards import DatasetWriter, StoredExample
from sglang_moss.training.data.storage import INFO_NAME, DatasetInfo
from sglang_moss.training.example import Example
from sglang_moss.training.rows import prompt_rows

WORDS = ["tea", "rain", "road", "home", "nine", "train", "fox", "dog", "film", "story", "calm", "wind"]


def golden_tokens(checkpoint: Path = GOLDEN / "ttsd") -> tuple[Any, SpecialTokens]:
    """Tokenizer and ids of a checkpoint."""
    tokenizer = Qwen2Tokenizer.from_pretrained(str(checkpoint))
    return tokenizer, special_tokens(read_json(checkpoint / "config.json").content)


def write_dataset(path: Path, examples: "InventedSpeech", model: Path = GOLDEN / "ttsd", **info: Any) -> Path:
    """The same as `moss-ttsd data prepare` leaves it; `info` changes what its `dataset.json` says."""
    path.mkdir(parents=True)
    writer = DatasetWriter(path)
    for i, n_prompt_rows in enumerate(examples.n_prompt_rows):
        one = examples[i]
        references = None if one.references is None else [writer.add_reference(codes) for codes in one.references]
        fields, n_rows = dict(one.fields), int(n_prompt_rows)
        writer.add(StoredExample(one.id, fields, one.codes, references, n_rows, 1, audio_sha256=bytes(32)))
    shard_rows, reference_rows = writer.close()
    made = DatasetInfo(
        codec_sha256=Checkpoint.open(GOLDEN / "ttsd", GOLDEN / "codec").codec.digest(),
        n_vq=examples.tokens.n_vq,
        sampling_rate=24_000,
        frame_samples=1920,
        codebook_size=examples.tokens.pad_code,
        tokenizer_sha256=hashlib.sha256((model / "tokenizer.json").read_bytes()).hexdigest(),
        template="ttsd",
        normalizer="none",
        n_examples=writer.n_examples,
        n_frames=writer.n_frames,
        n_rejected=0,
        n_given_codes=0,
        shard_rows=shard_rows,
        reference_rows=reference_rows,
    )
    (path / INFO_NAME).write_bytes(replace(made, **info).to_json())
    return path


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
