"""Shapes of the language model, and its published layout before training: random weights, in 16 bit.

`python -m small_voice.language_model OUTPUT --shape a --codebook-size 512`
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sglang_moss.training.flops import model_parameters
from sglang_moss.training.model import ModelShape, SpeechModel

from .tokenizer import token_ids, write_tokenizer

# Width, layers, heads (of 64), heads of keys and values, inner width.
SHAPES = {
    "a": (384, 10, 6, 6, 1024),
    "b": (384, 10, 6, 6, 1024),
    "c": (384, 8, 6, 6, 1024),
    "d": (384, 9, 6, 6, 1024),
    "tiny": (128, 3, 2, 2, 256),
}
# How it is drawn from where a request says nothing.
SAMPLING = {"temperature": 0.3, "top_p": 0.9, "repetition_penalty": 1.0}
SPLIT_SECONDS = 15  # of a script that is spoken at a time: of longer ones it leaves out sentences
_MULTIPLE = 16  # of the text vocabulary


def model_config(shape: str, n_vq: int, codebook_size: int, dtype: str = "bfloat16") -> dict[str, Any]:
    """`config.json` in the published layout."""
    width, n_layers, n_heads, n_kv, inner = SHAPES[shape]
    ids = token_ids()
    pad, vocabulary = ids["<|endoftext|>"], -(-(max(ids.values()) + 2) // _MULTIPLE) * _MULTIPLE
    language = {
        "architectures": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": pad,
        "dtype": dtype,
        "eos_token_id": ids["<|im_end|>"],
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "layer_types": ["full_attention"] * n_layers,
        "max_position_embeddings": 8192,
        "max_window_layers": n_layers,
        "model_type": "qwen3",
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": n_kv,
        "pad_token_id": pad,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 10_000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }
    return {
        "architectures": ["MossTTSDelayModel"],
        "model_type": "moss_tts_delay",
        "auto_map": {
            "AutoConfig": "configuration_moss_tts.MossTTSDelayConfig",
            "AutoModel": "modeling_moss_tts.MossTTSDelayModel",
            "AutoProcessor": "processing_moss_tts.MossTTSDelayProcessor",
        },
        "audio_assistant_delay_slot_token_id": ids["<|audio_assistant_delay_slot|>"],
        "audio_assistant_gen_slot_token_id": ids["<|audio_assistant_gen_slot|>"],
        "audio_end_token_id": ids["<|audio_end|>"],
        "audio_pad_code": codebook_size,
        "audio_start_token_id": ids["<|audio_start|>"],
        "audio_user_slot_token_id": ids["<|audio_user_slot|>"],
        "audio_vocab_size": codebook_size,
        "dtype": dtype,
        "hidden_size": width,
        "im_end_token_id": ids["<|im_end|>"],
        "im_start_token_id": ids["<|im_start|>"],
        "initializer_range": 0.02,
        "language_config": language,
        "n_vq": n_vq,
        "pad_token_id": pad,
        "sampling_rate": 24_000,
        "sglang_moss": {"sampling": SAMPLING, "split_seconds": SPLIT_SECONDS},
        "vocab_size": vocabulary,
    }


def write_untrained(directory: Path, config: dict[str, Any], seed: int = 0) -> int:
    """Write config, tokenizer and random weights; returns the number of parameters."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_tokenizer(directory)
    shape = ModelShape.from_dict(config)
    with torch.device("meta"):
        model = SpeechModel(shape)
    generator = torch.Generator().manual_seed(seed)
    n_layers = config["language_config"]["num_hidden_layers"]
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # a norm
            value = torch.ones(parameter.shape)
        else:
            value = 0.02 * torch.randn(parameter.shape, generator=generator)
            if name.endswith(("o_proj.weight", "down_proj.weight")):  # what is added to the residual stream
                value /= (2 * n_layers) ** 0.5
        tensors[name] = value.to(getattr(torch, config["dtype"]))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return model_parameters(shape)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="a")
    parser.add_argument("--n-vq", type=int, default=8)
    parser.add_argument("--codebook-size", type=int, default=512)
    args = parser.parse_args()
    n = write_untrained(args.output, model_config(args.shape, args.n_vq, args.codebook_size))
    print(f"language model {args.shape}: {n / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
