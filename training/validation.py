"""Loss on examples that are not learnt from, and when to stop."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from .distributed import World
from .loading import PackDataset, PackOrder, Packs
from .loss import loss_scales
from .model import SpeechModel
from .planning import Planner, deal
from .rows import label_counts


@dataclass
class Best:
    """The best validation so far."""

    loss: float = float("inf")
    step: int | None = None
    n_since: int = 0  # validations since, none of them better

    def update(self, loss: float, step: int) -> bool:
        """Whether this one is the best."""
        if loss < self.loss:
            self.loss, self.step, self.n_since = loss, step, 0
            return True
        self.n_since += 1
        return False


class Validation:
    """Every held-out example, in packs of the same size, in the same order each time."""

    def __init__(
        self, dataset: PackDataset, lengths: np.ndarray, pack_rows: int, weights: np.ndarray | None, world: World
    ) -> None:
        """
        Args:
            dataset: held-out examples.
            lengths: [N] rows of each in a pack.
            pack_rows: rows of a pack.
            weights: of channels, from `loss.channel_weights`.
            world: ranks share the packs.
        """
        self._dataset = dataset
        self._world = world
        n_vq = dataset.tokens.n_vq
        packs = Planner(lengths, pack_rows, world.size, seed=0, shuffles=False).packs(0)
        self._orders = [pack or (int(np.argmin(lengths)),) for pack in deal(packs, world.rank, world.size)]
        self._counted = [pack is not None for pack in deal(packs, world.rank, world.size)]
        self.counts = label_counts(int(dataset.examples.n_frames.sum()), len(dataset.examples), n_vq)
        self._scales = loss_scales(weights, self.counts)

    @torch.no_grad()
    def run(self, model: SpeechModel) -> tuple[float, np.ndarray]:
        """The loss, and [1 + n_vq] mean cross entropies of channels."""
        device = self._world.device
        sums = torch.zeros(len(self.counts), dtype=torch.float64, device=device)
        was_training = model.training
        model.eval()
        for pack, is_counted in zip(Packs(self._dataset, self._each(), device, 0, 1), self._counted, strict=True):
            sums += model(pack)[1] * is_counted
        model.train(was_training)
        if self._world.size > 1:
            distributed.all_reduce(sums)
        totals = sums.cpu().numpy()
        return float((totals * self._scales).sum()), totals / np.maximum(self.counts, 1)

    def _each(self) -> Iterator[PackOrder]:
        for pack in self._orders:
            yield PackOrder(pack, self._scales)
