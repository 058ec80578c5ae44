"""A fused checkpoint of the real shapes with random weights of ordinary size: what it speaks is noise one can hear.

    python -m sglang_moss.benchmarks.random_checkpoint --save-path made

24 GB, and 11 GB with `--profile voice`. SGLang's dummy weights need no files, but they are so small that the codec's
output rounds to silence.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.weights import checkpoint_shapes

from .runs.golden import add_golden_argument
from .shapes.random_weights import draw_weight
from .shapes.real_shapes import SHAPES, write_checkpoint

_SHARD_BYTES = 4 << 30
_LANGUAGE_STD = 0.02
_LAYER_SCALE = 0.1
_LOUDNESS = 0.1  # of the codec's last projection: full scale is 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-path", type=Path, required=True)
    add_golden_argument(parser)
    parser.add_argument("--profile", choices=SHAPES, default="ttsd", help="model of the family (%(default)s)")
    parser.add_argument("--n-vq", type=int, help="codebooks of its language model, other than the known ones")
    args = parser.parse_args()
    write_weights(write_checkpoint(args.save_path, args.golden, args.profile, args.n_vq))


def write_codec(path: Path, golden: Path) -> Path:
    """A fused checkpoint of the real shapes without its language model, 7 GB; returns `path`."""
    write_weights(write_checkpoint(path, golden), codec_only=True)
    return path


def write_weights(path: Path, seed: int = 0, *, codec_only: bool = False) -> None:
    """Write shards and their index for the `config.json` in `path`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(seed)
    config = json.loads((path / "config.json").read_text())
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    n_bytes = n_shards = total = 0

    def save() -> None:
        nonlocal shard, n_bytes, n_shards
        n_shards += 1
        name = f"model-{n_shards:05d}.safetensors"
        save_file(shard, path / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
        shard, n_bytes = {}, 0

    parts = (_codec_weights,) if codec_only else (_language_weights, _codec_weights)
    for name, tensor in (pair for part in parts for pair in part(config, device, generator)):
        shard[name] = tensor.cpu()
        n_bytes += tensor.nbytes
        total += tensor.nbytes
        if n_bytes >= _SHARD_BYTES:
            save()
    save()
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _language_weights(config: dict, device: torch.device, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    language = config["language_config"]
    for name, shape in _language_shapes(config, language):
        if len(shape) == 1:
            yield name, torch.ones(shape, dtype=torch.bfloat16, device=device)
        else:
            drawn = torch.empty(shape, dtype=torch.bfloat16, device=device)
            yield name, drawn.normal_(0.0, _LANGUAGE_STD, generator=generator)


def _codec_weights(config: dict, device: torch.device, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    with torch.device("meta"):
        codec = Codec(CodecConfig.from_dict(config["codec_config"]))
    last = max(int(name.split(".")[1]) for name in dict(codec.named_parameters()) if name.startswith("decoder."))
    for name, shape in checkpoint_shapes(codec).items():
        tensor = torch.empty(shape, dtype=torch.float32, device=device)
        draw_weight(name, tensor, generator, _LAYER_SCALE)
        if name.startswith(f"decoder.{last}.") and "output_proj" in name:
            tensor *= _LOUDNESS
        yield f"codec_model.{name}", tensor


def _language_shapes(config: dict, language: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
    d, n_codes, head_dim = language["hidden_size"], config["audio_vocab_size"] + 1, language["head_dim"]
    q, kv = language["num_attention_heads"] * head_dim, language["num_key_value_heads"] * head_dim
    wide = language["intermediate_size"]
    yield "model.embed_tokens.weight", (language["vocab_size"], d)
    yield "lm_heads.0.weight", (language["vocab_size"], d)
    for k in range(config["n_vq"]):
        yield f"emb_ext.{k}.weight", (n_codes, d)
        yield f"lm_heads.{k + 1}.weight", (n_codes, d)
    for i in range(language["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, n_out, n_in in (("q", q, d), ("k", kv, d), ("v", kv, d), ("o", d, q)):
            yield f"{layer}.self_attn.{name}_proj.weight", (n_out, n_in)
        for name, n_out, n_in in (("gate", wide, d), ("up", wide, d), ("down", d, wide)):
            yield f"{layer}.mlp.{name}_proj.weight", (n_out, n_in)
        for name in ("q_norm", "k_norm"):
            yield f"{layer}.self_attn.{name}.weight", (head_dim,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", (d,)
    yield "model.norm.weight", (d,)


if __name__ == "__main__":
    main()
