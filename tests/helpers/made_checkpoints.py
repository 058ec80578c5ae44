"""Checkpoints in the published layout, but with sizes and token ids of their own and random weights."""

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from codec_models import config_dict
from golden_data import GOLDEN
from safetensors.torch import save_file
from torch import Tensor

from sglang_moss.fuse.checkpoint import INDEX_NAME, SINGLE_NAME

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, Tensor]

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def transformer(d_model: int, num_heads: int, output_dimension: int, num_layers: int = 1, **changes: Any) -> dict:
    """One stage of a codec; `codec_config` fills in how wide its input is."""
    stage = {
        "module_type": "Transformer",
        "d_model": d_model,
        "num_heads": num_heads,
        "output_dimension": output_dimension,
        "num_layers": num_layers,
        "dim_feedforward": 3 * d_model,
        "causal": True,
        "conv_layout": True,
        "gating": "none",
        "layer_scale": 0.6,
        "max_period": 10000,
        "norm": "layer_norm",
        "positional_embedding": "rope",
    }
    return stage | changes


def codec_config(
    encoder: Sequence[int | dict], decoder: Sequence[int | dict], quantizer: dict[str, int], **changes: Any
) -> dict[str, Any]:
    """config.json of a codec; a stage is a patch size or a `transformer`, the samples of a frame follow from them."""
    kwargs, frame_samples = [], 1
    for chain, width, down in ((encoder, 1, True), (decoder, quantizer["output_dim"], False)):
        stages: list[dict[str, Any]] = []
        for stage in chain:
            if isinstance(stage, int):
                stages.append({"module_type": "PatchedPretransform", "patch_size": stage})
                width = width * stage if down else width // stage
                frame_samples *= stage if down else 1
            else:
                stages.append({**stage, "input_dimension": width})
                width = stage["output_dimension"]
        kwargs.append(stages)
    sizes = {"encoder_kwargs": kwargs[0], "decoder_kwargs": kwargs[1], "quantizer_kwargs": quantizer}
    rates = {"downsample_rate": frame_samples, "sample_rate": changes.get("sampling_rate", 24_000)}
    golden = {
        name: value for name, value in config_dict().items() if name not in ("code_dim", "reversed_decoder_kwargs")
    }
    return golden | sizes | rates | changes


def codec_shapes(config: dict[str, Any]) -> Shapes:
    """Name and shape of every tensor of a codec's checkpoint."""
    shapes: Shapes = {}
    for side in ("encoder", "decoder"):
        for i, stage in enumerate(config[f"{side}_kwargs"]):
            if stage["module_type"] == "Transformer":
                shapes |= {f"{side}.{i}.{name}": shape for name, shape in _stage_shapes(stage).items()}
    quantizer = config["quantizer_kwargs"]
    outer, inner, narrow = quantizer["input_dim"], quantizer["rvq_dim"], quantizer["codebook_dim"]
    shapes |= _projection("quantizer.input_proj", outer, inner)
    shapes |= _projection("quantizer.output_proj", inner, quantizer["output_dim"])
    for k in range(quantizer["num_quantizers"]):
        book = f"quantizer.quantizers.{k}"
        shapes[f"{book}.codebook.weight"] = (quantizer["codebook_size"], narrow)
        shapes |= _projection(f"{book}.in_proj", inner, narrow) | _projection(f"{book}.out_proj", narrow, inner)
    return shapes


def _stage_shapes(stage: dict[str, Any]) -> Shapes:
    d, n_in, n_out, wide = (stage[f] for f in ("d_model", "input_dimension", "output_dimension", "dim_feedforward"))
    shapes: Shapes = {"input_proj.weight": (d, n_in)} if n_in != d else {}
    shapes |= {"output_proj.weight": (n_out, d)} if n_out != d else {}
    for layer in (f"transformer.layers.{i}" for i in range(stage["num_layers"])):
        for n in (1, 2):
            shapes |= {f"{layer}.norm{n}.{part}": (d,) for part in ("weight", "bias")}
            shapes |= {f"{layer}.layer_scale_{n}.scale": (d,)} if stage["layer_scale"] is not None else {}
        shapes |= {f"{layer}.self_attn.in_projs.0.weight": (3 * d, d), f"{layer}.self_attn.out_projs.0.weight": (d, d)}
        shapes |= {f"{layer}.linear1.weight": (wide, d), f"{layer}.linear2.weight": (d, wide)}
    return shapes


def _projection(name: str, n_in: int, n_out: int) -> Shapes:
    """A weight-normed 1x1 convolution, which exists between different widths only."""
    halves = f"{name}.parametrizations.weight.original"
    sizes = {f"{halves}0": (n_out, 1, 1), f"{halves}1": (n_out, n_in, 1), f"{name}.bias": (n_out,)}
    return sizes if n_in != n_out else {}


def codec_tensors(config: dict[str, Any], seed: int) -> Tensors:
    """Random weights that make every layer count and keep the waveform well within full scale."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    last = len(config["decoder_kwargs"]) - 2  # the last stage is a patch
    for name, shape in codec_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("original0"):
            tensors[name] = 1 + 0.1 * noise.abs()
        elif name.endswith((".norm1.weight", ".norm2.weight", ".scale")):
            tensors[name] = 0.7 + 0.1 * noise
        elif name.endswith(".bias"):
            tensors[name] = 0.1 * noise
        else:
            tensors[name] = noise / shape[1] ** 0.5 * (0.04 if name == f"decoder.{last}.output_proj.weight" else 1)
    return tensors


def language_model_tensors(config: dict[str, Any], seed: int) -> Tensors:
    """Random weights; channel 0 of the hidden state is planted so that the model opens audio, and soon ends it."""
    generator = torch.Generator().manual_seed(seed)
    language = config["language_config"]
    d, head, wide = language["hidden_size"], language["head_dim"], language["intermediate_size"]
    n_q, n_kv = language["num_attention_heads"] * head, language["num_key_value_heads"] * head
    n_codes = config["audio_vocab_size"] + 1

    def noise(*shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(shape, generator=generator)

    tensors = {"language_model.embed_tokens.weight": noise(language["vocab_size"], d)}
    for i in range(language["num_hidden_layers"]):
        layer = f"language_model.layers.{i}"
        for name, n_out, n_in in (("q", n_q, d), ("k", n_kv, d), ("v", n_kv, d), ("o", d, n_q)):
            tensors[f"{layer}.self_attn.{name}_proj.weight"] = noise(n_out, n_in, std=n_in**-0.5)
            if language["attention_bias"]:
                tensors[f"{layer}.self_attn.{name}_proj.bias"] = noise(n_out, std=0.2)
        for name, n_out, n_in in (("gate", wide, d), ("up", wide, d), ("down", d, wide)):
            tensors[f"{layer}.mlp.{name}_proj.weight"] = noise(n_out, n_in, std=n_in**-0.5)
        norms = {
            "self_attn.q_norm": head,
            "self_attn.k_norm": head,
            "input_layernorm": d,
            "post_attention_layernorm": d,
        }
        tensors |= {f"{layer}.{name}.weight": 1 + noise(size, std=0.1) for name, size in norms.items()}
    tensors["language_model.norm.weight"] = torch.ones(d)
    tensors |= {f"emb_ext.{k}.weight": noise(n_codes, d, std=0.5) for k in range(config["n_vq"])}
    tensors |= {f"lm_heads.{k}.weight": noise(n_codes, d, std=0.4) for k in range(1, config["n_vq"] + 1)}
    tensors["lm_heads.0.weight"] = noise(language["vocab_size"], d, std=0.1)

    tensors["language_model.embed_tokens.weight"][:, 0] = 8
    for name, pull in (("audio_start", 3.0), ("audio_assistant_gen_slot", 0.6), ("audio_assistant_delay_slot", 0.3)):
        tensors["lm_heads.0.weight"][config[f"{name}_token_id"], 0] = pull
    return tensors


def write_single(directory: Path, config: dict[str, Any], tensors: Tensors) -> None:
    """A checkpoint of one weight file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / SINGLE_NAME, metadata={"format": "pt"})


def write_sharded(directory: Path, config: dict[str, Any], tensors: Tensors, n_shards: int) -> None:
    """A checkpoint of several weight files and their index."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    names = sorted(tensors)
    weight_map = {}
    for i in range(n_shards):
        shard = f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors"
        save_file({name: tensors[name] for name in names[i::n_shards]}, directory / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names[i::n_shards], shard)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / INDEX_NAME).write_text(json.dumps(index))


def write_moved_tokenizer(directory: Path, seed: int) -> dict[int, int]:
    """Copy the golden tokenizer with another id for every token, the special ones scattered; returns new id by old."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(GOLDEN / "ttsd" / name, directory)
    content = json.loads((directory / "tokenizer.json").read_text())
    words, added = content["model"]["vocab"], content["added_tokens"]
    special = random.Random(seed).sample(range(0, 3 * len(added), 3), len(added))
    moved = dict(zip((token["id"] for token in added), special, strict=True))
    moved |= dict(zip(sorted(words.values()), _without(special, len(words) + len(added)), strict=True))

    words = {word: moved[i] for word, i in words.items()}
    for token in added:
        token["id"] = moved[token["id"]]
    # A token that the vocabulary knows keeps its id there; others would be numbered behind the words.
    content["model"]["vocab"] = words | {token["content"]: token["id"] for token in added}
    _write_json(directory / "tokenizer.json", content)
    _write_json(directory / "vocab.json", words)
    _write_json(directory / "added_tokens.json", {token["content"]: token["id"] for token in added})
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {str(moved[int(i)]): t for i, t in settings["added_tokens_decoder"].items()}
    _write_json(directory / "tokenizer_config.json", settings)
    return moved


def add_foreign_code(directory: Path, marker: Path) -> None:
    """Python files that a checkpoint may carry and that every config names; whoever runs one leaves `marker`."""
    classes = {
        "AutoConfig": "foreign.Config",
        "AutoProcessor": "foreign.Processor",
        "AutoTokenizer": ["foreign.T", None],
    }
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((directory / name).read_text())
        own = content.get("auto_map", {})
        _write_json(directory / name, {**content, "auto_map": classes | {"AutoModel": "foreign.Model"} | own})
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nraise RuntimeError('foreign code was run')\n"
    for name in ("foreign.py", "processing_moss_tts_delay_with_codec.py"):
        (directory / name).write_text(code)


def _without(taken: Iterable[int], n: int) -> list[int]:
    return sorted(set(range(n)) - set(taken))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
