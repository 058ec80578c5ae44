"""Checkpoints without weights, for SGLang's dummy ones: our models at their real size, and the plain model underneath.

Source of the shapes: MOSS-TTSD v1.0 and MOSS-Audio-Tokenizer configurations; model cards of the family, Qwen3-1.7B.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from sglang_moss.checkpoint import OWN_FIELD

_LANGUAGE = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 155_648,
    "max_window_layers": 36,
    "layer_types": ["full_attention"] * 36,
}
_LANGUAGE_1_7B = {
    **_LANGUAGE,
    "hidden_size": 2048,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "intermediate_size": 6144,
    "max_window_layers": 28,
    "layer_types": ["full_attention"] * 28,
}
# By profile: the language model, and how many codebooks it has; for two of them nobody has said so yet.
SHAPES = {"ttsd": (_LANGUAGE, 16), "tts": (_LANGUAGE, 32), "voice": (_LANGUAGE_1_7B, 32), "sound": (_LANGUAGE, 32)}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


def write_checkpoint(path: Path, golden: Path, profile: str = "ttsd", n_vq: int | None = None) -> Path:
    """A fused checkpoint's configuration at the real size, with the golden tokenizer and no weights.

    Args:
        profile: of the model, see `SHAPES`.
        n_vq: other than the one there.
    """
    language, n_codebooks = SHAPES[profile]
    shutil.copytree(golden / "fused", path)
    (path / "model.safetensors.index.json").unlink(missing_ok=True)
    config = json.loads((path / "config.json").read_text())
    config |= {name: language[name] for name in ("hidden_size", "vocab_size")}
    config |= {"audio_vocab_size": 1024, "audio_pad_code": 1024, "n_vq": n_vq or n_codebooks}
    config |= {} if profile == "ttsd" else {OWN_FIELD: {"profile": profile}}
    config["language_config"] |= language
    config["codec_config"] |= codec_shape()
    for part in (config, config["language_config"]):
        part["dtype"] = "bfloat16"
    (path / "config.json").write_text(json.dumps(config))
    return path


def write_plain_checkpoint(path: Path, fused: Path) -> Path:
    """The language model of a fused checkpoint as an ordinary text model, without codebooks, codec and weights."""
    path.mkdir(parents=True)
    config = json.loads((fused / "config.json").read_text())
    plain = {**config["language_config"], "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    plain |= {"tie_word_embeddings": False, "dtype": config.get("dtype", "bfloat16")}
    (path / "config.json").write_text(json.dumps(plain))
    for name in _TOKENIZER_FILES:
        if (fused / name).exists():
            shutil.copy(fused / name, path / name)
    return path


def codec_shape() -> dict[str, Any]:
    """What the codec's configuration says of its layers: 1.77 G parameters."""

    def stage(n_in: int, n_out: int, large: bool = False) -> dict[str, Any]:
        d_model, n_heads, n_layers = (1280, 20, 32) if large else (768, 12, 12)
        return {
            "module_type": "Transformer",
            "input_dimension": n_in,
            "output_dimension": n_out,
            "d_model": d_model,
            "num_heads": n_heads,
            "num_layers": n_layers,
            "dim_feedforward": 4 * d_model,
            "causal": True,
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "max_period": 10000,
            "gating": "none",
            "layer_scale": 0.01,
            "conv_layout": True,
        }

    def patch(size: int) -> dict[str, Any]:
        return {"module_type": "PatchedPretransform", "patch_size": size}

    encoder = [patch(240), stage(240, 384), patch(2), stage(768, 384), patch(2), stage(768, 640), patch(2)]
    decoder = [stage(768, 1280, large=True), patch(2), stage(640, 768), patch(2), stage(384, 768), patch(2)]
    quantizer = {"input_dim": 768, "rvq_dim": 512, "output_dim": 768, "num_quantizers": 32}
    return {
        "encoder_kwargs": [*encoder, stage(1280, 768, large=True)],
        "decoder_kwargs": [*decoder, stage(384, 240), patch(240)],
        "quantizer_kwargs": {**quantizer, "codebook_size": 1024, "codebook_dim": 8, "quantizer_type": "rlfq"},
        "code_dim": 768,
    }
