"""How much each channel counts, and what its sum of cross entropies is divided by.

    loss = sum_c w[c] / sum(w) * (sum of channel c) / (labels of channel c)

Numerators come pack by pack; the labels are counted over the whole optimizer step beforehand. So neither packing, nor
accumulation, nor the number of ranks changes the loss or its gradient. Upstream divides each micro-batch by its own
labels and takes the mean over micro-batches, so that a short dialogue weighs as much as a long one; `upstream` does so
as well, for comparison.

Source: MOSS-TTS `MossTTSDelayModel.forward`, `--channelwise-loss-weight`.
"""

from collections.abc import Sequence

import numpy as np

from .errors import TrainingError

AVERAGES = ("step", "upstream")


def channel_weights(weights: Sequence[float] | None, n_vq: int) -> np.ndarray | None:
    """One weight for each channel, text first.

    Args:
        weights: 1 + n_vq of them; or two, of the text and of all codebooks together; or None: every label counts
            alike, whatever its channel.
    Returns:
        [1 + n_vq] float64, or None.
    Raises:
        TrainingError: another number of weights, or one that is negative, or none above 0.
    """
    if weights is None:
        return None
    if len(weights) == 2:
        weights = [weights[0], *[weights[1] / n_vq] * n_vq]
    if len(weights) != 1 + n_vq or min(weights) < 0 or sum(weights) == 0:
        raise TrainingError(
            f"loss.weights: expected text and audio, or one weight for each of {1 + n_vq} channels, none negative and "
            f"not all 0, got {list(weights)}"
        )
    return np.array(weights, np.float64)


def loss_scales(weights: np.ndarray | None, counts: np.ndarray) -> np.ndarray:
    """What a channel's sum of cross entropies is multiplied by, given the labels that are counted together.

    Args:
        weights: from `channel_weights`.
        counts: [..., 1 + n_vq] integers: labels of each channel.
    Returns:
        float64 of the shape of `counts`.
    """
    if weights is None:
        return np.broadcast_to(1 / np.maximum(counts.sum(-1, keepdims=True), 1), counts.shape)
    return weights / weights.sum() / np.maximum(counts, 1)


def pack_scales(weights: np.ndarray | None, counts: np.ndarray, average: str) -> np.ndarray:
    """Scales of every pack of one optimizer step.

    Args:
        weights: from `channel_weights`.
        counts: [n_packs, 1 + n_vq] labels of each pack.
        average: `step`: as if all packs were one; `upstream`: the mean of the packs' own losses.
    Returns:
        [n_packs, 1 + n_vq] float64.
    """
    if average == "upstream":
        return loss_scales(weights, counts) / len(counts)
    return np.broadcast_to(loss_scales(weights, counts.sum(0)), counts.shape)
