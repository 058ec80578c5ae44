"""What a recogniser hears of speech before and after a fused checkpoint's codec."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from sglang_moss.codec.kernels import plain_torch

from ...evaluation.clips import RATE
from ...evaluation.error_rates import word_errors
from ...evaluation.recognisers import Recogniser
from ...evaluation.results import Figure
from ...evaluation.spoken_words import tokens_of
from ...evaluation.statistics import ratio_figure
from ...training.data.checkpoint import Checkpoint
from .texts import RATE as CODEC_RATE


@dataclass(frozen=True)
class Reconstruction:
    """Word error rates of the same sentences, and how much more are wrong behind the codec."""

    source: float
    codec: float
    cost: Figure


def reconstruction_errors(
    fused: Path, speech: Sequence[tuple[str, np.ndarray]], recogniser: Recogniser
) -> Reconstruction:
    """Word errors of speech, and of what the codec makes of it, in float32 on the CPU.

    Args:
        speech: text and [L] float32 at the codec's rate, each.
    """
    made = through_codec(fused, [samples for _, samples in speech])
    counts = np.zeros((len(speech), 3))  # wrong before, wrong behind it, words
    for row, (text, samples), other in zip(counts, speech, made, strict=True):
        said = tokens_of(text, "en")
        for k, clip in enumerate((samples, other)):
            heard = recogniser.hear(resample_poly(clip, RATE, CODEC_RATE).astype(np.float32), "en").text
            found = word_errors(said, tokens_of(heard, "en"))
            row[k], row[2] = found.count, found.n
    before, behind, words = counts.T
    n = max(1.0, words.sum())
    return Reconstruction(before.sum() / n, behind.sum() / n, ratio_figure(np.stack([behind - before, words], axis=1)))


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
