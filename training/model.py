"""The language model as it is trained: a Qwen3 backbone, embeddings and heads of codes, under the published names.

    rows [N, 1 + n_vq] -> sum of embeddings -> Qwen3 -> heads -> loss and sums of each channel

Source: MOSS-TTS `MossTTSDelayModel`; tensor names of the published checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from sglang_moss.config import SpecialTokens, special_tokens

from .attention import INTERFACE, Segments
from .errors import TrainingError
from .heads import Heads
from .pack import Pack


@dataclass(frozen=True)
class ModelShape:
    """What a checkpoint's `config.json` says of the language model."""

    backbone: Qwen3Config
    tokens: SpecialTokens
    n_codes: int  # of each embedding and head of a codebook: its codes and the pad code

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "ModelShape":
        """Read a published or fused `config.json`.

        Raises:
            TrainingError: a field is missing, or asks for what is not implemented.
        """
        try:
            tokens = special_tokens(config)
            language = dict(config["language_config"])
            n_codes = config["audio_vocab_size"] + 1
        except KeyError as error:
            raise TrainingError(
                f"config.json has no field {error}: pass the directory of a MOSS-TTSD language model, or a fused one"
            ) from None
        if language.get("attention_dropout"):
            raise TrainingError("config.json: attention_dropout is not implemented; set it to 0")
        if tokens.pad_code != n_codes - 1:
            raise TrainingError(
                f"config.json: audio_pad_code {tokens.pad_code} is not the last of {n_codes} codes; take another one"
            )
        language["dtype"] = None
        language["attn_implementation"] = INTERFACE
        backbone = Qwen3Config(**language)
        if set(backbone.layer_types or ()) - {"full_attention"}:
            raise TrainingError("config.json: layers with a sliding window are not implemented")
        return cls(backbone, tokens, n_codes)


class SpeechModel(nn.Module):
    """One forward pass over a pack gives its loss."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        backbone, n_vq = shape.backbone, shape.tokens.n_vq
        self.shape = shape
        self.language_model = Qwen3Model(backbone)
        self.emb_ext = nn.ModuleList(nn.Embedding(shape.n_codes, backbone.hidden_size) for _ in range(n_vq))
        self.lm_heads = Heads(
            backbone.hidden_size, backbone.vocab_size, n_vq, shape.n_codes, pad_code=shape.tokens.pad_code
        )
        self.attention = "sdpa"

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Loss of a pack, and [1 + n_vq] float32 sums of cross entropy, not scaled and without a gradient."""
        hidden = self.hidden_states(pack).index_select(0, pack.learnt)
        return self.lm_heads(hidden, pack.labels, pack.scales)

    def hidden_states(self, pack: Pack) -> Tensor:
        """[N, D] after the last norm."""
        hidden = self.embed(pack.rows)[None]
        segments = Segments.of(self.attention, pack.cu_seqlens, pack.max_rows, len(pack.rows))
        rotary = self.language_model.rotary_emb(hidden, pack.positions[None])
        for layer in self.language_model.layers:
            hidden = layer(hidden, position_embeddings=rotary, segments=segments)
        return self.language_model.norm(hidden)[0]

    def embed(self, rows: Tensor) -> Tensor:
        """[N, 1 + n_vq] -> [N, D]: the sum of a text embedding and of n_vq embeddings of codes."""
        total = self.language_model.embed_tokens(rows[:, 0])
        for k, embedding in enumerate(self.emb_ext, 1):
            total = total + embedding(rows[:, k])
        return total

    def layers(self) -> Iterator[nn.Module]:
        """The backbone's layers."""
        yield from self.language_model.layers


def empty_model(shape: ModelShape, device: torch.device, dtype: torch.dtype) -> SpeechModel:
    """A model whose weights are not filled in; made without a copy elsewhere."""
    with torch.device("meta"):
        model = SpeechModel(shape).to(dtype)
    materialize(model, device)
    return model


def materialize(model: SpeechModel, device: torch.device) -> None:
    """Give a model on the meta device memory, and the only tensors that no checkpoint has: rotary frequencies."""
    model.to_empty(device=device)
    backbone = model.language_model
    with torch.device(device):
        backbone.rotary_emb = type(backbone.rotary_emb)(config=backbone.config)
