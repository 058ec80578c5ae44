"""The sampler that SGLang calls after our model: the model has drawn already, this hands the rows on.

The model returns rows [B, 1 + n_vq] (text id, codes) in the place of logits. Column 0 goes back to SGLang as the next
token id; whole rows ride along as SGLang's auxiliary output, which SGLang copies to the host with its own and hands to
`AcceptedRows.consume` once it has committed the tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.layers.sampler import Sampler
from sglang.srt.managers.auxiliary_output import CommittedTokens
from sglang.srt.runtime_context import get_server_args
from torch import Tensor

from sglang_moss.server_args import serves_speech

OnRow = Callable[[Any, np.ndarray], None]  # takes a request of SGLang's and its row [1 + n_vq]


@dataclass(frozen=True)
class RowsApart:
    """A count on the device, [1] int64, and who hears of it whenever it has been copied to the host."""

    count: Tensor
    show: Callable[[int], None]


@dataclass(frozen=True)
class DrawnRows:
    """Rows of one step on the device, [B, 1 + n_vq] int64."""

    rows: Tensor
    on_row: OnRow
    apart: RowsApart | None = None

    def copy_to_host(self, copy_tensor: Callable[[Tensor], Tensor]) -> "AcceptedRows":
        apart = None if self.apart is None else RowsApart(copy_tensor(self.apart.count), self.apart.show)
        return AcceptedRows(copy_tensor(self.rows), self.on_row, apart)


@dataclass(frozen=True)
class AcceptedRows:
    """Rows of one step on the host, whole once SGLang has waited for its copies."""

    rows: Tensor
    on_row: OnRow
    apart: RowsApart | None = None

    def consume(self, batch: Any, commits: Sequence[CommittedTokens | None]) -> None:
        """Hand on each row whose token was committed: exactly once a row, also after a retraction."""
        if self.apart is not None:
            self.apart.show(int(self.apart.count))
        rows = self.rows.numpy()
        for i, (req, commit) in enumerate(zip(batch.reqs, commits, strict=True)):
            if commit is not None:
                self.on_row(req, rows[i])


class RowSampler(Sampler):
    """Takes the drawn rows apart; no draw happens here."""

    on_row: OnRow | None = None  # whoever wants the accepted rows; set once the scheduler is made
    apart: RowsApart | None = None  # where ranks are held against the first one; set likewise

    def forward(self, logits_output: LogitsProcessorOutput, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        drawn = logits_output.next_token_logits
        assert drawn is not None
        # Clones: a captured graph's output is overwritten by the next replay, while the copy stream still reads.
        if self.on_row is not None:
            apart = None if self.apart is None else RowsApart(self.apart.count.clone(), self.apart.show)
            logits_output.auxiliary_device_output = DrawnRows(drawn.clone(), self.on_row, apart)
        return drawn[:, 0].clone()


def build_sampler() -> Sampler:
    """Factory for SGLang's registry of samplers: ours for our model, stock for any other."""
    return RowSampler() if serves_speech(get_server_args()) else Sampler()
