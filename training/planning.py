"""Which examples meet in which pack, step and rank, known before any of them is read.

    permutation(seed, epoch) -> windows of examples -> packs, best fit decreasing -> steps -> ranks

Everything is a function of lengths, seed and epoch: a run resumes by its step alone, with any number of workers. The
examples of a step do not depend on the number of ranks either, as long as the packs a step stay as many.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import overload

import numpy as np

Pack = tuple[int, ...]  # examples, by their place in the dataset

WINDOW = 4096  # examples that are packed together: more fill no better, and would be less random


class EpochPacks(Sequence[Pack]):
    """The packs of an epoch, of which 8 bytes an example and 8 a pack are held: a dataset may have millions."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self._examples = array("q")
        self._ends = array("q", [0])
        for pack in packs:
            self._examples.extend(pack)
            self._ends.append(len(self._examples))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Pack: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pack]: ...
    def __getitem__(self, index: int | slice) -> Pack | list[Pack]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return tuple(self._examples[self._ends[i] : self._ends[i + 1]])


class Planner:
    """The order of a run."""

    def __init__(
        self,
        lengths: np.ndarray,
        pack_rows: int,
        packs_per_step: int,
        seed: int,
        *,
        window: int = WINDOW,
        shuffles: bool = True,
        ordered: bool = False,
    ) -> None:
        """
        Args:
            lengths: [N] rows that each example takes in a pack.
            pack_rows: rows of a pack; a longer example makes one of its own.
            packs_per_step: most packs of an optimizer step, over all ranks.
            seed: of every epoch's order.
            window: examples that are packed together.
            shuffles: False: every epoch in the dataset's order.
            ordered: shuffle within windows only, which follow each other as in the dataset.
        """
        assert len(lengths), "an empty dataset has no order"
        self.lengths = np.asarray(lengths, np.int64)
        self.pack_rows = pack_rows
        self.packs_per_step = packs_per_step
        self.seed = seed
        self.window = window
        self.shuffles = shuffles
        self.ordered = ordered
        self.packs = lru_cache(maxsize=2)(lambda epoch: EpochPacks(self._packs(epoch)))
        self._n_steps: list[int] = []  # of every epoch so far

    def steps_in(self, epoch: int) -> int:
        """Optimizer steps of an epoch."""
        while len(self._n_steps) <= epoch:
            self._n_steps.append(-(-len(self.packs(len(self._n_steps))) // self.packs_per_step))
        return self._n_steps[epoch]

    def n_steps(self, n_epochs: int) -> int:
        """Optimizer steps of the first epochs."""
        return sum(map(self.steps_in, range(n_epochs)))

    def place(self, step: int) -> tuple[int, int]:
        """Epoch of a step of the run, and its number in that epoch."""
        epoch = 0
        while step >= self.steps_in(epoch):
            step -= self.steps_in(epoch)
            epoch += 1
        return epoch, step

    def step(self, step: int) -> list[Pack]:
        """Packs of a step of the run, the dearest first.

        Steps are full but for the last two of an epoch, which have half of the packs at least: none learns from a
        remainder alone, and ranks that share a full step out evenly wait for nothing in all but those two.
        """
        epoch, in_epoch = self.place(step)
        packs, bounds = self.packs(epoch), self._bounds(len(self.packs(epoch)))
        chosen = packs[bounds[in_epoch] : bounds[in_epoch + 1]]
        return sorted(chosen, key=lambda pack: (-self.cost(pack), pack))

    def cost(self, pack: Pack) -> int:
        """What attention costs, up to a factor."""
        return int((self.lengths[list(pack)] ** 2).sum())

    def fill(self, epoch: int) -> float:
        """Share of `pack_rows` that examples take, over an epoch's packs."""
        rows = [int(self.lengths[list(pack)].sum()) for pack in self.packs(epoch)]
        return sum(rows) / sum(max(n, self.pack_rows) for n in rows)

    def _bounds(self, n_packs: int) -> list[int]:
        """Where an epoch's steps begin among its packs, and where the last one ends."""
        n = -(-n_packs // self.packs_per_step)
        bounds = [step * self.packs_per_step for step in range(n)]
        if n > 1:
            missing = n * self.packs_per_step - n_packs
            bounds[-1] = n_packs - self.packs_per_step + min(missing, self.packs_per_step // 2)
        return [*bounds, n_packs]

    def _packs(self, epoch: int) -> Iterator[Pack]:
        order = np.arange(len(self.lengths))
        rng = np.random.default_rng([self.seed, epoch])
        if self.shuffles and not self.ordered:
            rng.shuffle(order)
        for start in range(0, len(order), self.window):
            of_window = best_fit(order[start : start + self.window].tolist(), self.lengths, self.pack_rows)
            if self.shuffles:  # else the fullest come first
                of_window = [of_window[i] for i in rng.permutation(len(of_window))]
            yield from of_window


def best_fit(examples: Sequence[int], lengths: np.ndarray, pack_rows: int) -> list[Pack]:
    """Best fit decreasing: the longest example first, each into the fullest pack that still takes it."""
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # rows left and pack, ascending
    for example in sorted(examples, key=lambda i: -lengths[i]):
        length = int(lengths[example])
        at = bisect_left(room, (length, -1))
        if at < len(room):
            left, pack = room.pop(at)
        else:
            left, pack = max(pack_rows, length), len(packs)
            packs.append([])
        packs[pack].append(example)
        insort(room, (left - length, pack))
    return [tuple(pack) for pack in packs]


def deal(packs: Sequence[Pack], rank: int, n_ranks: int) -> list[Pack | None]:
    """A rank's packs of a step, in snake order: 0 1 2, 2 1 0, 0 1 2 ...

    Args:
        packs: of the step, the dearest first.
        rank: from 0.
        n_ranks: every one of which gets as many, since all of them have to take part.
    Returns:
        None: nothing is left for this rank.
    """
    dealt: list[Pack | None] = []
    for start in range(0, len(packs), n_ranks):
        turn = start // n_ranks
        at = start + (rank if turn % 2 == 0 else n_ranks - 1 - rank)
        dealt.append(packs[at] if at < len(packs) else None)
    return dealt
