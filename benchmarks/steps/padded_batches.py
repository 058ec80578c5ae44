"""Micro-batches as they are without packing: whole examples as they come, padded to the longest of them."""

from collections.abc import Iterator

import numpy as np

from ...training.loading import PackDataset, PackOrder
from ...training.pack import Pack as PackTensors
from ...training.pack import make_pack
from ...training.planning import Pack, Planner
from ...training.rows import IGNORED


class PaddedPlanner(Planner):
    """Examples in the order of the permutation, as many as fit with their padding into `pack_rows`."""

    def fill(self, epoch: int) -> float:
        """Share of the rows that are no padding."""
        packs = self.packs(epoch)
        return float(self.lengths.sum()) / sum(int(self.padded(pack).sum()) for pack in packs)

    def padded(self, pack: Pack) -> np.ndarray:
        """[n] rows of each example with its padding."""
        return np.full(len(pack), self.lengths[list(pack)].max())

    def _packs(self, epoch: int) -> Iterator[Pack]:
        packs: list[list[int]] = [[]]
        longest = 0
        for i in map(int, self._order(epoch)):
            longest = max(longest, int(self.lengths[i]))
            if packs[-1] and (len(packs[-1]) + 1) * longest > self.pack_rows:
                packs.append([])
                longest = int(self.lengths[i])
            packs[-1].append(i)
        return map(tuple, packs)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))


class BatchedPlanner(PaddedPlanner):
    """As many examples in every micro-batch, as a trainer with a batch size has them: the most of them that come, with
    their padding, to `pack_rows` rows in the mean."""

    def _packs(self, epoch: int) -> Iterator[Pack]:
        order = self._order(epoch).tolist()
        n = 1
        while n < len(order) and np.mean([self.padded(pack).sum() for pack in _cut(order, n + 1)]) <= self.pack_rows:
            n += 1
        return iter(_cut(order, n))


class PaddedDataset(PackDataset):
    """Orders to padded micro-batches; padding stands on the right, is seen by nobody, and learns nothing."""

    def __getitem__(self, order: PackOrder) -> PackTensors:
        made = [self.rows_of(i) for i in order.examples]
        longest = max(len(rows) for rows, _ in made)
        return make_pack([self._padded(rows, labels, longest) for rows, labels in made], order.scales)

    def _padded(self, rows: np.ndarray, labels: np.ndarray, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        padding = np.full((n_rows - len(rows), rows.shape[1]), self.tokens.pad_code, np.int32)
        padding[:, 0] = self.tokens.text_pad
        ignored = np.full(padding.shape, IGNORED, np.int32)
        return np.concatenate([rows, padding]), np.concatenate([labels, ignored])


def _cut(order: list[int], n: int) -> list[Pack]:
    return [tuple(order[start : start + n]) for start in range(0, len(order), n)]
