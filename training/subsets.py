"""Parts of a dataset: what is held out, and what is short enough."""

import hashlib
from collections.abc import Sequence

import numpy as np

from .example import Example
from .loading import Examples


class Subset:
    """Some examples of a dataset, by their places in it."""

    def __init__(self, examples: Examples, places: np.ndarray) -> None:
        self._examples = examples
        self._places = np.asarray(places, np.int64)
        self.n_frames = examples.n_frames[self._places]
        self.n_prompt_rows = examples.n_prompt_rows[self._places]
        self.ids = _Ids(examples.ids, self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Example:
        return self._examples[int(self._places[i])]

    def __reduce__(self) -> tuple[type, tuple[Examples, np.ndarray]]:
        return type(self), (self._examples, self._places)  # a worker needs no copy of the ids


class _Ids(Sequence[str]):
    def __init__(self, ids: Sequence[str], places: np.ndarray) -> None:
        self._ids = ids
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] (no slices are asked for)
        return self._ids[int(self._places[i])]


def held_out(ids: Sequence[str], share: float, seed: int) -> np.ndarray:
    """[N] bool: examples that are kept for validation, chosen by their ids alone.

    So a dataset that grows keeps what was held out, up to the share. At least one example where the share is above 0,
    and never all of them.
    """
    chosen = np.zeros(len(ids), bool)
    if share > 0 and len(ids) > 1:
        n = min(max(1, round(share * len(ids))), len(ids) - 1)
        digests = b"".join(hashlib.sha256(f"{seed} {one}".encode()).digest()[:8] for one in ids)
        chosen[np.argsort(np.frombuffer(digests, ">u8"), kind="stable")[:n]] = True
    return chosen
