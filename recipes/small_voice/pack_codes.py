"""Encoded speech in one file, to take from the machine that made it to another, and back.

    python -m small_voice.pack_codes pack ENCODED FILE
    python -m small_voice.pack_codes unpack FILE... ENCODED

Codes below 512 take nine bits: a byte each, and the ninth bits of eight codes in one more. Lengths of examples
(`measure_examples`) travel along.
"""

import argparse
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sglang_moss.request.text import normalize_text

from .encode import CODES

_INDEX = ("n_frames", "voices", "n_tokens")


def pack(encoded: Path, path: Path) -> None:
    """Write a folder of `encode` into one file.

    Raises:
        ValueError: a code is 512 or more.
    """
    codes = np.fromfile(encoded / CODES, np.uint16)
    if codes.size and int(codes.max()) >= 512:
        raise ValueError(f"the highest code is {int(codes.max())}; nine bits hold 511")
    texts = [pair[0] for pair in json.loads((encoded / "texts.json").read_text(encoding="utf-8"))]
    index = np.load(encoded / "index.npz")
    lengths = {file.stem: np.load(file).astype(np.int16) for file in encoded.glob("lengths-*.npy")}
    with path.open("wb") as file:
        np.savez(
            file,
            low=(codes & 255).astype(np.uint8),
            high=np.packbits((codes >> 8).astype(np.uint8)),
            texts=np.frombuffer(lzma.compress("\n".join(texts).encode()), np.uint8),
            **{name: index[name] for name in _INDEX},
            **lengths,
        )


def unpack(paths: Sequence[Path], encoded: Path) -> None:
    """Write the folder again, as `encode` and `measure_examples` had left it; of several files, one after the other.

    Raises:
        ValueError: they have different numbers of codebooks.
    """
    encoded.mkdir(parents=True, exist_ok=True)
    texts: list[str] = []
    widths = set()
    index: dict[str, list[np.ndarray]] = {name: [] for name in _INDEX}
    with (encoded / CODES).open("wb") as codes:
        for path in paths:
            with np.load(path) as packed:
                low = packed["low"]
                high = np.unpackbits(packed["high"], count=len(low)).astype(np.uint16)
                codes.write((low | high << 8).tobytes())
                widths.add(len(low) // int(packed["n_frames"].sum()))
                texts += lzma.decompress(packed["texts"].tobytes()).decode().split("\n")
                for name, found in index.items():
                    found.append(packed[name])
                if len(paths) == 1:  # lengths are those of examples of all utterances
                    for name in filter(lambda name: name.startswith("lengths-"), packed.files):
                        np.save(encoded / f"{name}.npy", packed[name].astype(np.int32))
    if len(widths) > 1:
        raise ValueError(f"files of {', '.join(map(str, sorted(widths)))} codebooks: they are of different codecs")
    pairs = [(text, normalize_text(text)) for text in texts]
    (encoded / "texts.json").write_text(json.dumps(pairs), encoding="utf-8")
    np.savez(encoded / "index.npz", **{name: np.concatenate(found) for name, found in index.items()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    if args.action == "unpack":
        unpack(args.sources, args.target)
    elif len(args.sources) == 1:
        pack(args.sources[0], args.target)
    else:
        parser.error("pack: one folder at a time")


if __name__ == "__main__":
    main()
