"""A codebook of letters before the codec's own, and the codec without it:

    python -m small_voice.letter_book add CODEC OUTPUT
    python -m small_voice.letter_book remove CODEC OUTPUT

The language model says in it which letter is spoken and which comes next, and reads that again for the next frame: to
keep its place in the text it has to compare letters with letters, not sounds. Nothing of it is heard: the codec's first
book projects to nothing, so that what it decodes and what the other books encode stay the same. What the codec encodes
has UNKNOWN in it, for letters are not in a sound alone; training shows references, and what is continued, like that.
"""

import argparse
import json
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .codec_config import WEIGHTS
from .letters import ALPHABET, letters_of
from .sentences import read_text

UNKNOWN = 0
N_SIGNS = 1 + len(ALPHABET)  # silence, and the letters
_BOOKS = "quantizer.quantizers."
_FIRST = f"{_BOOKS}0."


@lru_cache(maxsize=4)
def codes_of_pairs(codebook_size: int) -> np.ndarray:
    """[N_SIGNS, N_SIGNS] uint16, by sign and the next one; those that are rare share the code of the first alone.

    Raises:
        ValueError: the codebook has no room for the signs.
    """
    n_pairs = codebook_size - 1 - N_SIGNS
    if n_pairs < 0:
        raise ValueError(f"a codebook of {codebook_size} has no room for {N_SIGNS} signs")
    counts: Counter[tuple[int, int]] = Counter()
    for text in read_text("examples"):
        counts.update(pairwise([0, 0, *letters_of(text), 0]))
    table = np.repeat(1 + np.arange(N_SIGNS, dtype=np.uint16)[:, None], N_SIGNS, 1)
    frequent = sorted(counts, key=lambda pair: (-counts[pair], pair))[:n_pairs]
    for code, pair in enumerate(frequent, 1 + N_SIGNS):
        table[pair] = code
    return table


def add(codec: Path, output: Path) -> None:
    """Write a codec with the book."""
    config, tensors = _read(codec)
    own = {name: _silent(name, tensor) for name, tensor in tensors.items() if name.startswith(_FIRST)}
    _write(output, config, {_renumbered(name, 1): tensor for name, tensor in tensors.items()} | own, 1)


def remove(codec: Path, output: Path) -> None:
    """Write a codec without the book, to train it further.

    Raises:
        ValueError: it has none.
    """
    if not is_there(codec):
        raise ValueError(f"{codec} has no book of letters")
    config, tensors = _read(codec)
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(_FIRST)}
    _write(output, config, {_renumbered(name, -1): tensor for name, tensor in others.items()}, -1)


def is_there(codec: Path) -> bool:
    """Whether a codec's first book is of letters: the vector of UNKNOWN is nothing, as none that is learnt is."""
    tensors = load_file(codec / WEIGHTS)
    return not tensors[f"{_FIRST}codebook.weight"][UNKNOWN].any()


def refuse(codec: Path) -> None:
    """End where a codec has the book: what is trained, and what codes are made with, are the others alone."""
    if is_there(codec):
        raise SystemExit(f"{codec} has a book of letters: take it away, python -m small_voice.letter_book remove")


def _read(codec: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads((codec / "config.json").read_text(encoding="utf-8")), load_file(codec / WEIGHTS)


def _renumbered(name: str, by: int) -> str:
    """The name of a tensor whose book stands so many places further on; others keep theirs."""
    if not name.startswith(_BOOKS):
        return name
    number, rest = name.removeprefix(_BOOKS).split(".", 1)
    return f"{_BOOKS}{int(number) + by}.{rest}"


def _write(output: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], n_more: int) -> None:
    config["quantizer_kwargs"]["num_quantizers"] += n_more
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    kept = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    save_file(kept, output / WEIGHTS, {"format": "pt"})


def _silent(name: str, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the book of letters: everything is nearest to UNKNOWN, and nothing comes of any vector."""
    if name != f"{_FIRST}codebook.weight":
        # A weight in two halves has its length, which is nothing, and a direction, which has to have one.
        return torch.ones_like(like) if name.endswith("original1") else torch.zeros_like(like)
    vectors = torch.ones_like(like)
    vectors[UNKNOWN] = 0
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("add", "remove"))
    parser.add_argument("codec", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    (add if args.action == "add" else remove)(args.codec, args.output)


if __name__ == "__main__":
    main()
