"""Logits of a language model of the family by transformers' own backbone, apart from everything that serves."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model


@torch.no_grad()
def logits_by_transformers(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """[S, V] text and [n_vq, S, audio_vocab_size + 1] audio logits after rows [S, 1 + n_vq], in float32.

    Args:
        config: of the language model, as published.
        tensors: by their published names.
        rows: text ids, and delayed codes.
    """
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    n_vq = config["n_vq"]
    backbone = Qwen3Model(Qwen3Config(**{**config["language_config"], "dtype": "float32"})).eval()
    prefix = "language_model."
    backbone.load_state_dict({n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)})
    embeds = backbone.embed_tokens(rows[:, 0])
    for k in range(n_vq):
        embeds = embeds + weights[f"emb_ext.{k}.weight"][rows[:, 1 + k]]
    hidden = backbone(inputs_embeds=embeds[None]).last_hidden_state[0]
    text, *audio = (hidden @ weights[f"lm_heads.{k}.weight"].T for k in range(1 + n_vq))
    return text, torch.stack(audio)
