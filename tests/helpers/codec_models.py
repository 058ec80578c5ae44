"""Codecs to test with: the golden checkpoint under both contexts, and a small one of odd sizes with random weights."""

import copy
import functools
import json
from typing import Any

import torch
from golden_data import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig

torch.set_num_threads(1)  # on a busy machine, threads cost these small tensors twenty times their arithmetic

CONTEXTS = {"ctx10": "codec", "short": "codec_short"}  # name in the golden cases -> folder of its config.json


def config_dict(context: str = "ctx10") -> dict[str, Any]:
    return json.loads((GOLDEN / CONTEXTS[context] / "config.json").read_text(encoding="utf-8"))


@functools.cache
def checkpoint_tensors() -> dict[str, Tensor]:
    return {k: v for shard in sorted((GOLDEN / "codec").glob("*.safetensors")) for k, v in load_file(shard).items()}


@functools.cache
def golden_codec(context: str, encoder_precision: str = "ieee") -> Codec:
    codec = Codec(CodecConfig.from_dict(config_dict(context)))
    codec.to_encoder_precision(encoder_precision)
    codec.load_weights(checkpoint_tensors().items())
    return codec


def _transformer(input_dimension: int, output_dimension: int, **changes: Any) -> dict[str, Any]:
    stage = {
        "module_type": "Transformer",
        "input_dimension": input_dimension,
        "output_dimension": output_dimension,
        "d_model": 12,
        "num_heads": 3,
        "num_layers": 1,
        "dim_feedforward": 20,
        "causal": True,
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "gating": "none",
        "layer_scale": 0.5,
    }
    return stage | changes


def _patch(patch_size: int) -> dict[str, Any]:
    return {"module_type": "PatchedPretransform", "patch_size": patch_size}


# 10 frames a second of 12 samples. Windows of the decoder: 3, 7 and 21 rows at 10, 20 and 60 rows a second. Every
# projection that may be absent is absent somewhere: widths 12 -> 12, codebooks as wide as the residual, no layer scale.
TINY = {
    "sampling_rate": 120,
    "downsample_rate": 12,
    "causal_transformer_context_duration": 0.35,
    "encoder_kwargs": [_patch(6), _transformer(6, 6), _patch(2), _transformer(12, 12, layer_scale=None)],
    "decoder_kwargs": [
        _transformer(12, 12, num_layers=2),
        _patch(2),
        _transformer(6, 12, num_heads=1, layer_scale=None),
        _patch(3),
        _transformer(4, 2, max_period=100),
        _patch(2),
    ],
    "quantizer_kwargs": {"input_dim": 12, "num_quantizers": 5, "codebook_size": 17, "codebook_dim": 12},
}


def tiny_config(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(TINY) | changes


@functools.cache
def tiny_codec() -> Codec:
    """Random weights that make every layer and every key in its window count; vector 0 of each codebook is zero."""
    codec = Codec(CodecConfig.from_dict(tiny_config()))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
        for k in range(codec.config.n_codebooks):
            codec.get_parameter(f"quantizer.quantizers.{k}.codebook.weight")[0] = 0
    codec.post_load()
    return codec


def random_codes(codec: Codec, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(codec.config.codebook_size, shape, generator=torch.Generator().manual_seed(seed))
