"""This process among the ranks of SGLang's tensor-parallel group, and the one thing that they may never part in: rows.

Every rank holds the whole text tables, code tables and audio heads, fills its own slots from the same host data, and
draws every row for itself; only the backbone between them is split. Rank 0 alone has the codec and the way out.

    hidden (equal on all ranks) -> draw -> rank 0's rows, broadcast -> slots, SGLang

Equal logits give equal draws, but nobody promises equal logits: one code that differs would add a share of another
row's embedding to every later sum, and a text id that differs would end a request on one rank only, where the others
would wait for ever. So what goes on is rank 0's rows, everywhere.
"""

import logging
from typing import Any

import torch
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from sglang.srt.runtime_context import get_parallel, get_serving
from torch import Tensor

from sglang_moss.row_sampler import RowsApart
from sglang_moss.step.slots import PADDING_SLOT, SlotState

logger = logging.getLogger(__name__)


def is_first_rank() -> bool:
    """Whether this process talks to the HTTP process, and has the codec."""
    return get_parallel().tp_rank == 0


def replicate_text_tables(model: Any) -> None:
    """Give `model`, a causal language model of SGLang's, whole text tables in the place of this rank's shards.

    Our kernels look rows up by id and read two rows of the head; SGLang's layers hide the shards behind their own
    `forward`, which is not called here.
    """
    config = model.config
    shape = config.vocab_size, config.hidden_size
    model.model.embed_tokens = VocabParallelEmbedding(*shape, enable_tp=False)
    model.lm_head = ParallelLMHead(*shape, enable_tp=False)


def shared_rows(counts: bool, device: torch.device) -> "SharedRows | None":
    """What makes rows equal on all ranks; None where there is one.

    Args:
        counts: whether rows that differ from rank 0's are counted.
    """
    parallel = get_parallel()
    return SharedRows(parallel.tp_group, device if counts else None) if parallel.tp_size > 1 else None


class SharedRows:
    """Rank 0's rows for every rank of `group`, as part of the captured step.

    Args:
        group: SGLang's `GroupCoordinator`; its `broadcast` works in place and can be captured.
        counts_on: device of the count; None: nothing is counted.
    """

    def __init__(self, group: Any, counts_on: torch.device | None) -> None:
        self._group = group
        # Rows [1] int64 that this rank has drawn otherwise than rank 0, which its own captured steps add to.
        self.n_apart = None if counts_on is None else torch.zeros(1, dtype=torch.int64, device=counts_on)

    def share(self, rows: Tensor, slots: Tensor, state: SlotState) -> Tensor:
        """Replace the rows [B, 1 + n_vq] (int64) that were drawn for `slots` [B] by rank 0's, also in the slots."""
        own = rows.clone() if self.n_apart is not None else None
        self._group.broadcast(rows)
        state.write(slots, rows[:, 1:].clamp_min(0))  # a row that is not finite carries no code, and ends its request
        if self.n_apart is not None:
            differs = (own != rows).any(dim=1) & (slots != PADDING_SLOT)
            self.n_apart += differs.sum()
        return rows


def rows_apart(shared: SharedRows | None, with_metrics: bool) -> RowsApart | None:
    """This rank's count for the sampler, told to the log, and to the metrics where there are any."""
    if shared is None or shared.n_apart is None:
        return None
    return RowsApart(shared.n_apart, _Told(with_metrics))


class _Told:
    """Says how many rows have been drawn apart, whenever that has changed."""

    def __init__(self, with_metrics: bool) -> None:
        self._gauge: Any = None
        self._n_told = 0
        if with_metrics:
            from prometheus_client import Gauge  # reads where SGLang collects when it is imported, which is set by now

            labels = {"model_name": get_serving().served_model_name, "tp_rank": str(get_parallel().tp_rank)}
            name, meaning = "moss_ttsd:rows_apart", "Rows that a rank has drawn otherwise than the first one"
            self._gauge = Gauge(name, meaning, list(labels), multiprocess_mode="mostrecent").labels(**labels)
            self._gauge.set(0)

    def __call__(self, n_apart: int) -> None:
        if n_apart == self._n_told:
            return
        self._n_told = n_apart
        logger.warning("this rank has drawn %d rows otherwise than the first one, whose rows were taken", n_apart)
        if self._gauge is not None:
            self._gauge.set(n_apart)
