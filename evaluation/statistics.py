"""Figures over items, how sure they are, and whether two runs differ.

Every figure is a sum over a sum: errors over words, right turns over turns, similarities over turns. An item gives one
pair of such numbers; items are drawn again as wholes, since the turns of one dialogue go well or badly together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, permutation_test

from .results import Figure, ItemScore

_DRAWS = 9_999
_SEED = 20_240_601
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """A figure by name.

    Attributes:
        of: an item's two numbers; None where it has none.
        smaller_is_better: else the larger.
    """

    name: str
    title: str
    of: Callable[[ItemScore], tuple[float, float] | None]
    smaller_is_better: bool
    is_share: bool = True


def _words(item: ItemScore) -> tuple[float, float] | None:
    return (item.words.count, item.words.n) if item.words else None


def _characters(item: ItemScore) -> tuple[float, float] | None:
    return (item.characters.count, item.characters.n) if item.characters else None


def _attribution(item: ItemScore) -> tuple[float, float] | None:
    turns = [turn for turn in item.turns if turn.counts]
    return (sum(turn.is_right for turn in turns), len(turns)) if turns else None


def _similarity(item: ItemScore) -> tuple[float, float] | None:
    found = [turn.similarity for turn in item.turns if turn.similarity is not None]
    return (sum(found), len(found)) if found else None


def _sound(item: ItemScore) -> tuple[float, float] | None:
    return (float(not item.signal.flags), 1.0) if item.signal else None


METRICS = (
    Metric("wer", "Word error rate", _words, smaller_is_better=True),
    Metric("cer", "Character error rate", _characters, smaller_is_better=True),
    Metric("acc", "Speaker attribution accuracy", _attribution, smaller_is_better=False),
    Metric("sim", "Speaker similarity", _similarity, smaller_is_better=False, is_share=False),
    Metric("sound", "Items whose sound has no flag", _sound, smaller_is_better=False),
)


@dataclass(frozen=True)
class Difference:
    """Two runs over the same items, in one figure.

    Attributes:
        a, b: the figure of each.
        low, high: of b - a, in 95 of 100 draws; None below 2 items.
        p_value: how often chance alone, swapping the two runs item by item, gives a difference as large.
        n_items: that both have.
    """

    metric: Metric
    a: float
    b: float
    low: float | None
    high: float | None
    p_value: float | None
    n_items: int

    @property
    def is_significant(self) -> bool:
        return self.p_value is not None and self.p_value < 1 - _CONFIDENCE

    @property
    def better(self) -> str | None:
        """ "a" or "b"; None where they are equal."""
        if self.a == self.b:
            return None
        return "b" if (self.b < self.a) == self.metric.smaller_is_better else "a"


def figures_of(items: Sequence[ItemScore]) -> dict[str, Figure]:
    """Every metric that at least one item has."""
    found = {}
    for metric in METRICS:
        pairs = [pair for item in items if (pair := metric.of(item)) is not None and pair[1]]
        if pairs:
            found[metric.name] = ratio_figure(np.array(pairs, dtype=np.float64))
    return found


def ratio_figure(pairs: np.ndarray) -> Figure:
    """Sum over sum of [items, 2], with its bootstrap interval (percentiles)."""
    numbers, sizes = pairs.T
    low = high = None
    if len(pairs) > 1:
        low, high = _interval((numbers, sizes), lambda n, s, axis: n.sum(axis=axis) / s.sum(axis=axis))
    return Figure(value=float(numbers.sum() / sizes.sum()), low=low, high=high, n=int(sizes.sum()), n_items=len(pairs))


def difference_of(metric: Metric, a: Sequence[ItemScore], b: Sequence[ItemScore]) -> Difference | None:
    """Hold two runs together; None where they share no item that has the metric.

    Args:
        a, b: the same items in the same order.
    """
    pairs = [(x, y) for x, y in zip(map(metric.of, a), map(metric.of, b), strict=True) if x and y and x[1] and y[1]]
    if not pairs:
        return None
    (a_numbers, a_sizes), (b_numbers, b_sizes) = np.array(pairs, dtype=np.float64).transpose(1, 2, 0)

    def change(an, asz, bn, bsz, axis):
        return bn.sum(axis=axis) / bsz.sum(axis=axis) - an.sum(axis=axis) / asz.sum(axis=axis)

    low = high = p_value = None
    if len(pairs) > 1:
        low, high = _interval((a_numbers, a_sizes, b_numbers, b_sizes), change)
        p_value = _p_value(a_numbers, a_sizes, b_numbers, b_sizes)
    return Difference(
        metric,
        float(a_numbers.sum() / a_sizes.sum()),
        float(b_numbers.sum() / b_sizes.sum()),
        low,
        high,
        p_value,
        len(pairs),
    )


def _interval(data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    found = bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=_DRAWS,
        batch=500,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def _p_value(a_numbers: np.ndarray, a_sizes: np.ndarray, b_numbers: np.ndarray, b_sizes: np.ndarray) -> float:
    """Two-sided paired permutation test: runs are swapped item by item; all ways if they are few, else a sample."""
    numbers, sizes = np.concatenate([a_numbers, b_numbers]), np.concatenate([a_sizes, b_sizes])
    n = len(a_numbers)

    def distance(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        # An item's two numbers are swapped together: what is permuted is where they stand.
        a, b = (numbers[z].sum(axis=axis) / sizes[z].sum(axis=axis) for z in (x.astype(int), y.astype(int)))
        return np.round(np.abs(b - a), 12)  # sums in another order must not look smaller

    found = permutation_test(
        (np.arange(n), np.arange(n, 2 * n)),
        distance,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_DRAWS,
        batch=500,
        alternative="greater",
        rng=np.random.default_rng(_SEED),
    )
    return float(found.pvalue)
