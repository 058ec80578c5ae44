"""More codebooks for a language model, which are letters and only learnt, and their end:

    python -m small_voice.letter_channels add MODEL OUTPUT
    python -m small_voice.letter_channels drop MODEL OUTPUT

To say which letter comes next, a model has to know where it is in the text; codes alone teach it that slowly, for most
of what they hold does not follow from the text. The channels are never read, so that every row has their pad codes: a
constant, which the text's embeddings take over when they are dropped. What the model computes stays the same.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

N_CHANNELS = 2
_WEIGHTS = "model.safetensors"
_TEXT = "language_model.embed_tokens.weight"


def add(model: Path, output: Path, seed: int = 0) -> None:
    """Write a model with channels of letters."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(model / _WEIGHTS)
    n_vq = config["n_vq"]
    generator = torch.Generator().manual_seed(seed)
    for k in range(n_vq, n_vq + N_CHANNELS):
        like = tensors["lm_heads.1.weight"]
        tensors[f"emb_ext.{k}.weight"] = torch.zeros_like(tensors["emb_ext.0.weight"])
        tensors[f"lm_heads.{k + 1}.weight"] = (0.02 * torch.randn(like.shape, generator=generator)).to(like.dtype)
    _write(model, output, config | {"n_vq": n_vq + N_CHANNELS}, tensors)


def drop(model: Path, output: Path) -> None:
    """Write the model without them."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(model / _WEIGHTS)
    n_vq, pad = config["n_vq"] - N_CHANNELS, config["audio_pad_code"]
    text = tensors[_TEXT].float()
    for k in range(n_vq, n_vq + N_CHANNELS):
        text += tensors.pop(f"emb_ext.{k}.weight")[pad].float()
        del tensors[f"lm_heads.{k + 1}.weight"]
    tensors[_TEXT] = text.to(tensors[_TEXT].dtype)
    _write(model, output, config | {"n_vq": n_vq}, tensors)


def _write(model: Path, output: Path, config: dict, tensors: dict[str, torch.Tensor]) -> None:
    shutil.copytree(model, output, dirs_exist_ok=True)
    (output / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, output / _WEIGHTS, {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("add", "drop"))
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    (add if args.action == "add" else drop)(args.model, args.output)


if __name__ == "__main__":
    main()
