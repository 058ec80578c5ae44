"""Rotary position embedding: every pair of neighbouring channels turns by an angle that grows with the row's position.

Source: MOSS-Audio-Tokenizer `MossAudioTokenizerRotaryEmbedding`, interleaved pairs.
"""

import torch
from torch import Tensor

from sglang_moss.codec import kernels


def rotation(positions: Tensor, head_dim: int, max_period: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every pair's angle.

    Args:
        positions: [B, S] int64 absolute positions.
    Returns:
        Two [B, S, 1, head_dim / 2] float32. The angles are float64: an hour at 100 rows a second reaches position
        360,000, where float32 angles are off by 0.02.
    """
    pair = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device)
    angles = positions[:, :, None, None].double() * max_period ** (-pair / head_dim)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of x [B, S, ..., head_dim] in float32; returns x's dtype."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def rotate_queries_and_keys(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn queries and keys in place.

    Args:
        qkv: [B, S, 3, H, head_dim] contiguous, queries, keys and values of each row.
        cos, sin: [B or 1, S, 1, head_dim / 2] float32, from `rotation`.
    """
    if kernels.run_on(qkv):
        from sglang_moss.codec.kernels.rotary import rotate_queries_and_keys as rotate_by_kernel

        rotate_by_kernel(qkv, cos, sin)
    else:
        qkv[:, :, :2] = rotate(qkv[:, :, :2], cos[:, :, None], sin[:, :, None])
