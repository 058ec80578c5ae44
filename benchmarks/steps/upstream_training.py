"""Upstream's training loop at its defaults, to be measured beside ours: one example a step, everything in 16 bit.

    weights, gradients and AdamW in bf16; transformers' own attention and mask; the logits of every head and every row;
    a loss a head, one after the other; no packing, no checkpointing

Written from its description: MOSS-TTS `moss_tts_delay/finetuning` (batch of 1, accumulation 1).
"""

import copy
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3Model

from ...training.model import ModelShape
from ...training.rows import IGNORED


class UpstreamModel(nn.Module):
    """Backbone, embeddings and heads, as upstream puts them together."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        backbone, n_vq = copy.deepcopy(shape.backbone), shape.tokens.n_vq
        backbone._attn_implementation = "sdpa"
        self.pad_code = shape.tokens.pad_code
        self.language_model = Qwen3Model(backbone)
        self.emb_ext = nn.ModuleList(nn.Embedding(shape.n_codes, backbone.hidden_size) for _ in range(n_vq))
        sizes = [backbone.vocab_size, *[shape.n_codes] * n_vq]
        self.lm_heads = nn.ModuleList(nn.Linear(backbone.hidden_size, n, bias=False) for n in sizes)

    def forward(self, rows: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """The loss of rows [B, S, 1 + n_vq]."""
        embeds = self.language_model.embed_tokens(rows[..., 0])
        for k, embedding in enumerate(self.emb_ext, 1):
            embeds = embeds + embedding(rows[..., k])
        mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        hidden = self.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        logits = [head(hidden) for head in self.lm_heads]
        losses = []
        for channel, values in enumerate(logits):
            if channel:
                values[..., self.pad_code] = float("-inf")
            wanted = labels[..., channel].flatten()
            each = functional.cross_entropy(values.flatten(0, 1).float(), wanted, ignore_index=IGNORED, reduction="sum")
            losses.append(each / (wanted != IGNORED).sum().clamp(min=1))
        return (torch.stack(losses) * weights).sum() / weights.sum()


def upstream_steps(
    shape: ModelShape, examples: Iterator[tuple[np.ndarray, np.ndarray]], device: torch.device, n_warmup: int
) -> Iterator[float]:
    """Train on examples one by one.

    Args:
        shape: of the model; its weights are random.
        examples: rows [S, 1 + n_vq] and labels [S - 1, 1 + n_vq].
        device: where.
        n_warmup: steps that are not given back.
    Yields:
        Seconds of a step.
    """
    with torch.device(device):
        model = UpstreamModel(shape).bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1)
    n_vq = shape.tokens.n_vq
    weights = torch.tensor([1.0, *[32 / n_vq] * n_vq], device=device)
    for i, (rows, labels) in enumerate(examples):
        _wait(device)
        started = time.perf_counter()
        inputs = torch.from_numpy(rows[:-1]).long().to(device)[None]
        loss = model(inputs, torch.from_numpy(labels).long().to(device)[None], weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # it is logged
        _wait(device)
        if i >= n_warmup:
            yield time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
