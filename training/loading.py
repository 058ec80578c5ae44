"""Packs in the order of the plan, made by worker processes that do nothing but read and build rows."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sglang_moss.config import SpecialTokens
from sglang_moss.request.prompt import Tokenizer
from sglang_moss.request.template import Template

from .errors import TrainingError
from .example import Example
from .pack import Pack, make_pack
from .rows import IGNORED, Layout, hide_codes, labels_of, n_input_rows, prompt_rows, target_rows


class Examples(Protocol):
    """What training needs of a dataset."""

    n_frames: np.ndarray  # [N] int32
    n_prompt_rows: np.ndarray  # [N] int32

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example: ...


def example_lengths(examples: Examples, n_vq: int) -> np.ndarray:
    """[N] int64: rows that each example takes in a pack."""
    return n_input_rows(examples.n_prompt_rows.astype(np.int64), examples.n_frames, n_vq)


@dataclass(frozen=True)
class PackOrder:
    """One pack that is to be made."""

    examples: tuple[int, ...]
    scales: np.ndarray  # [1 + n_vq] float64
    hidden: tuple[float, float] = (0.0, 0.0)  # shares of the targets' rows, and of codes in the others
    seed: tuple[int, ...] = ()  # of what is hidden


class PackDataset(Dataset):
    """Orders to packs."""

    def __init__(
        self,
        examples: Examples,
        tokenizer: Tokenizer,
        tokens: SpecialTokens,
        template: Template,
        layout: Layout,
        pad_to: int = 1,
        fill_rows: int = 0,
    ) -> None:
        self.examples = examples
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.template = template
        self.layout: Layout = layout
        self.pad_to = pad_to
        self.fill_rows = fill_rows
        self._lengths = example_lengths(examples, tokens.n_vq)

    def __getitem__(self, order: PackOrder) -> Pack:
        made = [self.rows_of(i) for i in order.examples]
        if any(order.hidden):
            rng = np.random.default_rng(order.seed)
            for rows, labels in made:
                target = rows[np.flatnonzero((labels != IGNORED).any(1))[0] + 1 :]
                hide_codes(target, self.tokens.pad_code, order.hidden, rng)
        return make_pack(made, order.scales, self.pad_to, self.fill_rows)

    def rows_of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows [S, 1 + n_vq] and labels [S - 1, 1 + n_vq] of one example, int32.

        Raises:
            TrainingError: they are not as many as the dataset says, or what is shown is of another shape.
        """
        example, tokens = self.examples[i], self.tokens
        prompt = prompt_rows(example, self.tokenizer, tokens, self.template)
        rows = np.concatenate([prompt, target_rows(example.codes, self.tokenizer, tokens, self.layout)])
        if len(rows) - 1 != self._lengths[i]:
            raise TrainingError(
                f"example {example.id} makes {len(rows) - 1} rows, its dataset says {self._lengths[i]}: it was "
                "prepared with another tokenizer or template; prepare it again"
            )
        labels = labels_of(rows, len(prompt), tokens.pad_code)
        if example.shown is not None:
            if example.shown.shape != example.codes.shape:
                raise TrainingError(
                    f"example {example.id} shows {example.shown.shape} codes in place of {example.codes.shape}"
                )
            rows[len(prompt) :] = target_rows(example.shown, self.tokenizer, tokens, self.layout)
        return rows, labels


class Packs:
    """Packs of some orders, ahead of time; counts the seconds that were spent waiting for them."""

    def __init__(
        self, dataset: PackDataset, orders: Iterator[PackOrder], device: torch.device, n_workers: int, n_ahead: int
    ) -> None:
        """
        Args:
            dataset: makes them.
            orders: read ahead.
            device: where the packs are wanted.
            n_workers: processes; 0: this one makes each pack when it is asked for.
            n_ahead: packs that each worker keeps ready.
        """
        settings: dict[str, Any] = {}
        if n_workers:
            settings = {"prefetch_factor": n_ahead, "multiprocessing_context": "forkserver"}
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=orders,  # pyright: ignore[reportArgumentType] (anything that can be iterated)
            num_workers=n_workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=_one_thread,
            **settings,
        )
        self._device = device
        self._iterator = iter(loader)
        self.waited_s = 0.0

    def __iter__(self) -> "Packs":
        return self

    def __next__(self) -> Pack:
        started = time.perf_counter()
        pack: Pack = next(self._iterator)
        self.waited_s += time.perf_counter() - started
        return pack.to(self._device)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
