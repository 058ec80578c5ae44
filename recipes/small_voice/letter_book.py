"""A codebook of letters before the codec's own: `python -m small_voice.letter_book CODEC OUTPUT`.

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

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .codec_config import WEIGHTS
from .letters import ALPHABET, letters_of
from .sentences import read_text

UNKNOWN = 0
N_SIGNS = 1 + len(ALPHABET)  # silence, and the letters
_BOOKS = "quantizer.quantizers."


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
    config = json.loads((codec / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(codec / WEIGHTS)
    quantizer = config["quantizer_kwargs"]
    moved = {}
    for name, tensor in tensors.items():
        if name.startswith(_BOOKS):
            number, rest = name.removeprefix(_BOOKS).split(".", 1)
            moved[f"{_BOOKS}{int(number) + 1}.{rest}"] = tensor
            if number == "0":
                moved[f"{_BOOKS}0.{rest}"] = _silent(rest, tensor)
        else:
            moved[name] = tensor
    quantizer["num_quantizers"] += 1
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in sorted(moved.items())}, output / WEIGHTS, {"format": "pt"})


def _silent(name: str, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the book of letters: everything is nearest to UNKNOWN, and nothing comes of any vector."""
    if name != "codebook.weight":
        # A weight in two halves has its length, which is nothing, and a direction, which has to have one.
        return torch.ones_like(like) if name.endswith("original1") else torch.zeros_like(like)
    vectors = torch.ones_like(like)
    vectors[UNKNOWN] = 0
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("codec", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    add(args.codec, args.output)


if __name__ == "__main__":
    main()
