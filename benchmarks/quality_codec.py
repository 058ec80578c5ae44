"""What a recogniser hears of speech before and after a fused checkpoint's codec."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from sglang_moss.codec.kernels import plain_torch

from ..evaluation.clips import RATE
from ..evaluation.error_rates import word_errors
from ..evaluation.recognisers import Recogniser
from ..evaluation.spoken_words import tokens_of
from ..training.data.checkpoint import Checkpoint
from .quality_texts import RATE as CODEC_RATE


@dataclass(frozen=True)
class Reconstruction:
    """Word error rates of the same sentences."""

    source: float
    codec: float
    words: int

    @property
    def cost(self) -> float:
        return self.codec - self.source


def reconstruction_errors(
    fused: Path, speech: Sequence[tuple[str, np.ndarray]], recogniser: Recogniser
) -> Reconstruction:
    """Word errors of speech, and of what the codec makes of it, in float32 on the CPU.

    Args:
        speech: text and [L] float32 at the codec's rate, each.
    """
    rates = []
    made = through_codec(fused, [samples for _, samples in speech])
    for clips in ([samples for _, samples in speech], made):
        errors = words = 0
        for (text, _), samples in zip(speech, clips, strict=True):
            at_its_rate = resample_poly(samples, RATE, CODEC_RATE).astype(np.float32)
            heard = recogniser.hear(at_its_rate, "en").text
            found = word_errors(tokens_of(text, "en"), tokens_of(heard, "en"))
            errors, words = errors + found.count, words + found.n
        rates.append((errors / max(1, words), words))
    return Reconstruction(rates[0][0], rates[1][0], rates[0][1])


@torch.inference_mode()
@plain_torch()
def through_codec(fused: Path, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[L] float32 each, encoded with as many codebooks as the language model speaks, and decoded again."""
    checkpoint = Checkpoint.open(fused)
    codec = checkpoint.codec.load(torch.device("cpu"))
    n_vq = checkpoint.tokens.n_vq
    made = []
    for clip in clips:
        codes = codec.encode([torch.from_numpy(clip)])[0][:, :n_vq]
        made.append(codec.decode(codes).clamp(-1, 1).numpy())
    return made
