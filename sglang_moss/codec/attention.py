"""Causal sliding-window attention over new rows that may follow a history.

    keys      history, oldest first (h) ++ new rows (S)
    query i   is key h + i, and sees key j when 0 <= h + i - j < window and key j was ever written

Queries go in blocks that read only the keys their windows reach, so memory and time are linear in S.

Source: MOSS-Audio-Tokenizer attention in its one-shot call: causal, key distance < window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# Of W + 511 keys read by a block each query needs W: small enough to waste little, large enough to fill a GPU.
MAX_BLOCK_ROWS = 512


@dataclass(frozen=True)
class QueryBlock:
    """Some queries, the keys that they may see, and which of these each sees."""

    queries: slice
    keys: slice
    mask: Tensor  # [B or 1, 1, n_queries, n_keys], 0 where visible and -inf where not, added to the scores


def plan_blocks(
    n_rows: int,
    window: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_history: int = 0,
    n_missing: Tensor | None = None,
) -> list[QueryBlock]:
    """Cut `n_rows` queries into blocks; one plan serves every layer of a stage.

    Args:
        n_history: history rows before the new ones, at most window - 1.
        n_missing: [B] int64, how many of the oldest history rows were never written. None: none are missing.
    """
    blocks = []
    masks: dict[tuple[int, int, int], Tensor] = {}  # beyond the history all full blocks share one
    for start in range(0, n_rows, MAX_BLOCK_ROWS):
        stop = min(start + MAX_BLOCK_ROWS, n_rows)
        first_key = max(0, n_history + start - window + 1)
        n_keys = n_history + stop - first_key
        shape = (stop - start, n_keys, n_history + start - first_key)
        if n_missing is not None and first_key < n_history:
            key = torch.arange(first_key, first_key + n_keys, device=device)
            written = (key >= n_missing[:, None])[:, None, None, :]
            mask = _additive(_band(*shape, window, device) & written, dtype)
        else:
            if shape not in masks:
                masks[shape] = _additive(_band(*shape, window, device)[None, None], dtype)
            mask = masks[shape]
        blocks.append(QueryBlock(slice(start, stop), slice(first_key, first_key + n_keys), mask))
    return blocks


def attend(q: Tensor, k: Tensor, v: Tensor, blocks: list[QueryBlock]) -> Tensor:
    """Attention of q [B, S, H, head_dim] over k and v [B, h + S, H, head_dim], which are finite even where hidden."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    parts = [
        scaled_dot_product_attention(q[:, :, b.queries], k[:, :, b.keys], v[:, :, b.keys], attn_mask=b.mask)
        for b in blocks
    ]
    return torch.cat(parts, dim=2).transpose(1, 2)


def _band(n_queries: int, n_keys: int, first_query: int, window: int, device: torch.device) -> Tensor:
    """[n_queries, n_keys] bool; query i is key first_query + i."""
    query = torch.arange(first_query, first_query + n_queries, device=device)[:, None]
    distance = query - torch.arange(n_keys, device=device)
    return (distance >= 0) & (distance < window)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))
