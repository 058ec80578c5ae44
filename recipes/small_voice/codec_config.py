"""Shapes of the codec, and its published layout: config.json and one file of 16-bit weights."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.weights import checkpoint_shapes

WEIGHTS = "model.safetensors"
CONTEXT_S = 1.6
# From samples to frames: (patch, width, layers of the encoder, layers of the decoder).
SHAPES = {
    "fine": ((120, 144, 1, 2), (2, 192, 1, 2), (2, 192, 1, 2), (2, 240, 1, 2), (2, 288, 2, 3)),
    "deep": ((240, 192, 1, 6), (2, 240, 1, 2), (2, 240, 1, 2), (2, 240, 1, 3)),
    "coarse": ((240, 192, 1, 4), (2, 240, 1, 2), (2, 240, 1, 2), (2, 288, 2, 3)),
    "tiny": ((240, 192, 1, 1), (2, 96, 1, 1), (2, 96, 1, 1), (2, 192, 1, 1)),
}
# What is trained: shape, codebooks and their entries, highest rate.
VARIANTS = {
    "p": {"shape": "deep", "n_codebooks": 8, "codebook_size": 512, "rate": 8e-4},
    "q": {"shape": "deep", "n_codebooks": 12, "codebook_size": 512, "rate": 8e-4},
    "r": {"shape": "deep", "n_codebooks": 12, "codebook_size": 512, "rate": 4e-4},  # to go on from one
    "decoder": {"shape": "deep", "n_codebooks": 8, "codebook_size": 512, "rate": 5e-4},  # of a codec that is given
    "tiny": {"shape": "tiny", "n_codebooks": 8, "codebook_size": 64, "rate": 2e-3},
}
_HEAD_SIZE = 48
_SCALE = 0.3  # first value of the layers' scales: these stages are shallow


def codec_config(shape: str, n_codebooks: int, codebook_size: int, codebook_dim: int = 8) -> dict[str, Any]:
    """`config.json` in the published layout."""
    stages = SHAPES[shape]
    inner = 160 if shape != "tiny" else 48
    encoder: list[dict[str, Any]] = []
    decoder: list[dict[str, Any]] = []
    n_in, samples = 1, 1
    top = stages[-1][1]
    for i, (patch, width, n_encoder, _) in enumerate(stages):
        is_last = i + 1 == len(stages)
        n_in, samples = n_in * patch, samples * patch
        n_out = top if is_last else width // 2
        encoder += [_patch(patch), _transformer(n_in, width, n_out, n_encoder)]
        n_in = n_out
    n_in = top
    for i, (patch, width, _, n_decoder) in reversed(list(enumerate(stages))):
        n_out = patch if i == 0 else patch * (stages[i - 1][1] // 2)
        decoder += [_transformer(n_in, width, n_out, n_decoder), _patch(patch)]
        n_in = n_out // patch
    return {
        "architectures": ["MossAudioTokenizerModel"],
        "model_type": "speech_tokenizer",
        "auto_map": {
            "AutoConfig": "configuration_moss_audio_tokenizer.MossAudioTokenizerConfig",
            "AutoModel": "modeling_moss_audio_tokenizer.MossAudioTokenizerModel",
        },
        "dtype": "float16",
        "sampling_rate": 24_000,
        "sample_rate": 24_000,
        "downsample_rate": samples,
        "causal_transformer_context_duration": CONTEXT_S,
        "encoder_kwargs": encoder,
        "decoder_kwargs": decoder,
        "quantizer_type": "rlfq",
        "quantizer_kwargs": {
            "quantizer_type": "rlfq",
            "input_dim": top,
            "rvq_dim": inner,
            "output_dim": top,
            "num_quantizers": n_codebooks,
            "codebook_size": codebook_size,
            "codebook_dim": codebook_dim,
        },
        "version": "small-voice",
    }


def new_codec(config: dict[str, Any]) -> Codec:
    """A codec with the initial weights of torch's own layers, trainable."""
    codec = Codec(CodecConfig.from_dict(config))
    codec.requires_grad_(True)
    return codec


def checkpoint_tensors(codec: Codec, dtype: torch.dtype) -> dict[str, Tensor]:
    """The codec's weights under the published names; a weight in two halves has its length and its direction."""
    weights = {name: p.detach().float().cpu() for name, p in codec.named_parameters()}
    names = iter(checkpoint_shapes(codec).items())
    tensors: dict[str, Tensor] = {}
    for value in weights.values():
        name, shape = next(names)
        if name.endswith("original0"):
            tensors[name] = value.norm(dim=1).reshape(shape)
            name, shape = next(names)
        tensors[name] = value.reshape(shape)
    return {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}


def save_codec(directory: Path, config: dict[str, Any], codec: Codec, dtype: torch.dtype = torch.float16) -> None:
    """Write config.json and the weights, rounded to `dtype`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    save_file(checkpoint_tensors(codec, dtype), directory / WEIGHTS, metadata={"format": "pt"})


def load_codec(directory: Path, device: torch.device | str = "cpu") -> Codec:
    """The codec as the server has it: the rounded weights in float32."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    codec = Codec(CodecConfig.from_dict(config))
    codec.load_weights(load_file(directory / WEIGHTS).items())
    return codec.to(device)


def _patch(size: int) -> dict[str, Any]:
    return {"module_type": "PatchedPretransform", "patch_size": size}


def _transformer(n_in: int, width: int, n_out: int, n_layers: int) -> dict[str, Any]:
    return {
        "module_type": "Transformer",
        "input_dimension": n_in,
        "output_dimension": n_out,
        "d_model": width,
        "num_heads": width // _HEAD_SIZE,
        "num_layers": n_layers,
        "dim_feedforward": 4 * width,
        "causal": True,
        "conv_layout": True,
        "gating": "none",
        "layer_scale": _SCALE,
        "max_period": 10000,
        "norm": "layer_norm",
        "positional_embedding": "rope",
    }
