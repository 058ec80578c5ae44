"""The language model as it is trained: a Qwen3 backbone, embeddings and heads of codes, under the published names.

    rows [N, 1 + n_vq] -> sum of embeddings -> Qwen3 -> heads -> loss and sums of each channel

Source: MOSS-TTS `MossTTSDelayModel`; tensor names of the published checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, Qwen3Config, Qwen3Model

from sglang_moss.config import SpecialTokens, special_tokens

from .attention import Segments
from .errors import TrainingError
from .heads import Heads
from .pack import Pack
from .small_operations import replace_small_operations


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
        replace_small_operations(self.language_model)
        self.emb_ext = nn.ModuleList(nn.Embedding(shape.n_codes, backbone.hidden_size) for _ in range(n_vq))
        self.lm_heads = Heads(
            backbone.hidden_size, backbone.vocab_size, n_vq, shape.n_codes, pad_code=shape.tokens.pad_code
        )
        self.attention = "sdpa"

    def forward(self, rows: Pack | Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """One pass.

        Args:
            rows: a pack; or [N, 1 + n_vq] integers that come next in one sequence.
            cache: keys and values of that sequence so far; the rows' are added.
        Returns:
            Of a pack its loss, and [1 + n_vq] float32 sums of cross entropy, not scaled and without a gradient. Of a
            sequence the text logits [1, V] and audio logits [1, n_vq, n_codes] after its last row, float32.
        """
        if isinstance(rows, Pack):
            segments = Segments.of(self.attention, rows.cu_seqlens, rows.max_rows, len(rows.rows))
            hidden = self._backbone(rows.rows, rows.positions, segments, None)
            return self.lm_heads(hidden.index_select(0, rows.learnt), rows.labels, rows.scales)
        n_before = cache.get_seq_length() if cache is not None else 0
        positions = torch.arange(n_before, n_before + len(rows), device=rows.device)
        return self.lm_heads(self._backbone(rows, positions, Segments.whole(positions), cache)[-1:])

    def _backbone(self, rows: Tensor, positions: Tensor, segments: Segments, cache: Cache | None) -> Tensor:
        """[N, D] after the last norm."""
        hidden = self.embed(rows)[None]
        rotary = self.language_model.rotary_emb(hidden, positions[None])
        for layer in self.language_model.layers:
            hidden = layer(hidden, position_embeddings=rotary, segments=segments, past_key_values=cache)
        return self.language_model.norm(hidden)[0]

    def embed(self, rows: Tensor) -> Tensor:
        """[N, 1 + n_vq] -> [N, D]: the sum of a text embedding and of n_vq embeddings of codes."""
        total = self.language_model.embed_tokens(rows[:, 0])
        for k, embedding in enumerate(self.emb_ext, 1):
            total = total + embedding(rows[:, k])
        return total

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.language_model.norm.weight.device

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
