"""Lengths of all examples, once for every run: `python -m small_voice.measure_examples ENCODED MODEL --examples N`."""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
from transformers import Qwen2Tokenizer

from sglang_moss.config import special_tokens

from .dialogues import Dialogues

SEEDS = {"training": 1, "validation": 2}
N_VALIDATION = 256
_own: Dialogues | None = None


def open_dialogues(encoded: Path, model: Path, n_examples: int, part: str) -> Dialogues:
    """Examples of a part, for a checkpoint."""
    tokens = special_tokens(json.loads((model / "config.json").read_text(encoding="utf-8")))
    tokenizer = Qwen2Tokenizer.from_pretrained(str(model))
    return Dialogues(encoded, n_examples, SEEDS[part], tokenizer, tokens, part=part)


def measured_path(encoded: Path, n_vq: int, part: str) -> Path:
    """Where their lengths are."""
    return encoded / f"lengths-{part}-{n_vq}.npy"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("encoded", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--examples", type=int, default=1_400_000)
    args = parser.parse_args()
    started = time.time()
    n_vq = json.loads((args.model / "config.json").read_text())["n_vq"]
    open_dialogues(args.encoded, args.model, 1, "validation")  # what is missing is told here, by no worker
    for part, n in (("validation", N_VALIDATION), ("training", args.examples)):
        step = 20_000
        with multiprocessing.get_context("spawn").Pool(
            min(os.cpu_count() or 1, 48, -(-n // step)), _start, (args.encoded, args.model, n, part)
        ) as pool:
            parts = pool.map(_measure, [range(k, min(k + step, n)) for k in range(0, n, step)], chunksize=1)
        lengths = np.concatenate(parts)
        np.save(measured_path(args.encoded, n_vq, part), lengths)
        rows = lengths.sum(1) + n_vq + 2
        print(
            f"{part}: {n} examples, {rows.mean():.0f} rows each, at most {rows.max()}, "
            f"{lengths[:, 0].sum() * 0.08 / 3600:.0f} h of targets, {time.time() - started:.0f} s",
            flush=True,
        )


def _start(encoded: Path, model: Path, n: int, part: str) -> None:
    global _own
    _own = open_dialogues(encoded, model, n, part)


def _measure(numbers: range) -> np.ndarray:
    assert _own is not None, "the pool has opened it"
    return _own.measure(numbers)


if __name__ == "__main__":
    main()
