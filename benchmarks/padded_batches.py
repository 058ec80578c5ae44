"""Micro-batches as they are without packing: whole examples as they come, padded to the longest of them."""

import numpy as np

from ..training.loading import PackDataset, PackOrder
from ..training.pack import Pack as PackTensors
from ..training.pack import make_pack
from ..training.planning import Pack, Planner
from ..training.rows import IGNORED


class PaddedPlanner(Planner):
    """Examples in the order of the permutation, as many as fit with their padding into `pack_rows`."""

    def fill(self, epoch: int) -> float:
        """Share of the rows that are no padding."""
        packs = self.packs(epoch)
        padded = sum(len(pack) * int(self.lengths[list(pack)].max()) for pack in packs)
        return float(self.lengths.sum()) / padded

    def _packs(self, epoch: int) -> list[Pack]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        packs: list[list[int]] = [[]]
        longest = 0
        for i in map(int, order):
            longest = max(longest, int(self.lengths[i]))
            if packs[-1] and (len(packs[-1]) + 1) * longest > self.pack_rows:
                packs.append([])
                longest = int(self.lengths[i])
            packs[-1].append(i)
        return [tuple(pack) for pack in packs]


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
