"""Two fused checkpoints that share no size with the golden one; both carry Python files that their configs name.

`nvq32` is the golden language model of 32 codebooks with a codec of our own, as there is golden data for it. In `odd`
everything is our own: sizes, rates, precision of the weights, and the token ids.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from golden_data import GOLDEN
from made_checkpoints import (
    TOKENIZER_FILES,
    add_foreign_code,
    codec_config,
    codec_tensors,
    language_model_tensors,
    transformer,
    write_moved_tokenizer,
    write_sharded,
    write_single,
)

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig
from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.fuse import fuse

# 20 frames a second; windows of 40 frames, so that the longest golden case reaches beyond them.
NVQ32_CODEC = codec_config(
    encoder=[100, transformer(24, 3, 10), 4, transformer(32, 4, 6), 3, transformer(18, 1, 22, num_layers=2)],
    decoder=[transformer(20, 2, 30, num_layers=2), 5, transformer(16, 2, 16), 2, transformer(8, 1, 120), 120],
    quantizer={
        "input_dim": 22,
        "rvq_dim": 14,
        "output_dim": 22,
        "num_quantizers": 32,
        "codebook_size": 64,
        "codebook_dim": 6,
    },
    causal_transformer_context_duration=2.0,
)
# 31.25 frames a second of 16 kHz, windows of 21; no projection in the quantizer, no layer scale, codebooks to spare.
ODD_CODEC = codec_config(
    encoder=[64, transformer(20, 1, 9, layer_scale=None), 8, transformer(24, 3, 18, max_period=500)],
    decoder=[transformer(24, 2, 32), 2, transformer(12, 3, 256, num_layers=3, layer_scale=None), 256],
    quantizer={
        "input_dim": 18,
        "rvq_dim": 18,
        "output_dim": 18,
        "num_quantizers": 7,
        "codebook_size": 37,
        "codebook_dim": 18,
    },
    causal_transformer_context_duration=0.7,
    sampling_rate=16_000,
)
ODD_SIZES = {"n_vq": 5, "audio_vocab_size": 37, "audio_pad_code": 37, "hidden_size": 44, "vocab_size": 653}
ODD_LANGUAGE = {
    "hidden_size": 44,
    "vocab_size": 653,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "intermediate_size": 90,
    "max_position_embeddings": 900,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "attention_bias": True,
    "tie_word_embeddings": True,  # without effect: the text head is a tensor of its own, as in the reference
    "layer_types": ["full_attention"] * 4,
    "max_window_layers": 4,
}

TIED_LANGUAGE = {  # heads as wide together as the model, half as many for keys, more layers than its cousins have
    "hidden_size": 64,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 192,
    "tie_word_embeddings": True,
    "layer_types": ["full_attention"] * 7,
    "max_window_layers": 7,
}


@dataclass(frozen=True)
class Fused:
    """A fused checkpoint, and its codec as the tests use it."""

    path: Path
    codec: Codec
    marker: Path  # exists once foreign code has been run


@dataclass(frozen=True)
class OddModel(Fused):
    config: dict[str, Any]  # of the language model, before fusing
    tensors: dict[str, torch.Tensor]
    moved: dict[int, int]  # its token ids, by the golden tokenizer's

    @property
    def tokens(self) -> SpecialTokens:
        return special_tokens(self.config)


def make_nvq32(folder: Path) -> Fused:
    tensors = codec_tensors(NVQ32_CODEC, seed=32)
    write_sharded(folder / "codec", NVQ32_CODEC, tensors, n_shards=3)
    fuse(GOLDEN / "ttsd_nvq32", folder / "codec", folder / "fused")
    add_foreign_code(folder / "fused", folder / "marker")
    return Fused(folder / "fused", _codec_of(NVQ32_CODEC, tensors), folder / "marker")


def make_odd(folder: Path) -> OddModel:
    moved = write_moved_tokenizer(folder / "lm", seed=5)
    config = json.loads((GOLDEN / "ttsd" / "config.json").read_text())
    for part in (config, config["language_config"]):
        part |= {name: moved[value] for name, value in part.items() if name.endswith("token_id")}
        part["dtype"] = "bfloat16"
    config |= {**ODD_SIZES, "sampling_rate": ODD_CODEC["sampling_rate"]}
    config["language_config"] |= ODD_LANGUAGE
    tensors = {name: tensor.bfloat16() for name, tensor in language_model_tensors(config, seed=1).items()}
    write_sharded(folder / "lm", config, tensors, n_shards=2)
    of_codec = codec_tensors(ODD_CODEC, seed=7)
    write_single(folder / "codec", ODD_CODEC, of_codec)
    fuse(folder / "lm", folder / "codec", folder / "fused", profile="ttsd")
    add_foreign_code(folder / "fused", folder / "marker")
    return OddModel(folder / "fused", _codec_of(ODD_CODEC, of_codec), folder / "marker", config, tensors, moved)


def make_tied(folder: Path) -> tuple[Path, dict[str, Any], dict[str, torch.Tensor]]:
    """A small and deep language model whose text head is its embedding, in the proportions of the 1.7 B one.

    Returns:
        Its directory, in the published layout and without the head; its configuration; all of its tensors.
    """
    config = json.loads((GOLDEN / "ttsd" / "config.json").read_text())
    config |= {"n_vq": 32, "hidden_size": TIED_LANGUAGE["hidden_size"]}
    config["language_config"] |= TIED_LANGUAGE
    tensors = language_model_tensors(config, seed=17)
    head = 0.1 * tensors["language_model.embed_tokens.weight"]
    head[:, 0] = 8
    for name, pull in (("audio_start", 3.0), ("audio_assistant_gen_slot", 0.6), ("audio_assistant_delay_slot", 0.3)):
        head[config[f"{name}_token_id"], 0] += pull
    tensors["language_model.embed_tokens.weight"] = head
    stored = {name: tensor for name, tensor in tensors.items() if name != "lm_heads.0.weight"}
    write_sharded(folder, config, stored, n_shards=2)
    for name in TOKENIZER_FILES:
        shutil.copy(GOLDEN / "ttsd" / name, folder)
    return folder, config, {**stored, "lm_heads.0.weight": head}


def _codec_of(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Codec:
    codec = Codec(CodecConfig.from_dict(config))
    codec.load_weights(tensors.items())
    return codec
