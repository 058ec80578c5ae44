"""Attention of one new row of every request over its cached rows, in plain torch: what the kernel is held to.

    out[b, h] = softmax(score_scale * q[b, h] K^T) V      over the first lengths[b] rows of request b

Query heads are grouped: each key/value head serves HQ / HK of them, in order.
"""

import torch
from torch import Tensor


def attend(
    q: Tensor, key_cache: Tensor, value_cache: Tensor, page_table: Tensor, lengths: Tensor, score_scale: float
) -> Tensor:
    """Attention of q over a paged cache, in float32.

    Args:
        q: [B, HQ, D].
        key_cache: [pages, page_size, HK, D] in any floating dtype; HQ is a multiple of HK.
        value_cache: as many, of the same dtype.
        page_table: [B, W] int32; page i of request b holds its rows from i * page_size on.
        lengths: [B] int32, rows of each request, 1 to W * page_size.
    Returns:
        [B, HQ, D] in the dtype of q.
    """
    page_size, n_kv_heads = key_cache.shape[1:3]
    group = q.shape[1] // n_kv_heads
    out = []
    for query, table, length in zip(q.float(), page_table, lengths.tolist(), strict=True):
        pages = table[: -(-length // page_size)].long()
        keys, values = (
            cache[pages].flatten(0, 1)[:length].float().repeat_interleave(group, dim=1)
            for cache in (key_cache, value_cache)
        )
        weights = torch.einsum("hd,nhd->hn", query, keys).mul(score_scale).softmax(dim=-1)
        out.append(torch.einsum("hn,nhd->hd", weights, values))
    return torch.stack(out).to(q.dtype)
