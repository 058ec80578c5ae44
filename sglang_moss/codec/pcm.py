"""Float samples to 16-bit PCM, by one rule wherever they are."""

import torch
from torch import Tensor

_FULL_SCALE = 1 << 15


def to_pcm16(samples: Tensor) -> Tensor:
    """16-bit samples of a waveform.

    The rule: times 32768, rounded to the nearest integer, halves to the even one, then clipped to [-32768, 32767]. It
    undoes exactly the division by 32768 that reading a 16-bit file means.

    Args:
        samples: float32 in [-1, 1], any shape; what lies beyond is clipped. NaN gives any number.
    Returns:
        int16, of the same shape.
    """
    return (samples * _FULL_SCALE).round_().clamp_(-_FULL_SCALE, _FULL_SCALE - 1).to(torch.int16)
