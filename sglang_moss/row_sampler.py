"""The sampler that SGLang calls after our model: the model has drawn already, this hands the rows on.

The model returns rows [B, 1 + n_vq] (text id, codes) in the place of logits. Column 0 goes back to SGLang as the next
token id; whole rows are copied to the host, to be picked up (`SpeechStreamer.row_accepted`) once SGLang has accepted
the token.
"""

from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.layers.sampler import Sampler
from sglang.srt.runtime_context import get_server_args
from torch import Tensor

from sglang_moss.server_args import serves_speech

ROWS = "speech_rows"


class RowSampler(Sampler):
    """Takes the drawn rows apart; no draw happens here."""

    def forward(self, logits_output: LogitsProcessorOutput, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        rows = logits_output.next_token_logits
        assert rows is not None
        carried: Any = {ROWS: _to_host(rows)}  # indexed by request, like the lists SGLang expects here
        logits_output.customized_info = carried
        # A clone: a captured graph's output is overwritten by the next replay, while the copy stream still reads.
        return rows[:, 0].clone()


def build_sampler() -> Sampler:
    """Factory for SGLang's registry of samplers: ours for our model, stock for any other."""
    return RowSampler() if serves_speech(get_server_args()) else Sampler()


def _to_host(rows: Tensor) -> Tensor:
    """A copy on the host; on a GPU it is whole once this stream's work is, for which SGLang waits before it reads.

    The next replay of a graph comes on the same stream, so it overwrites `rows` after they have been copied.
    """
    if not rows.is_cuda:
        return rows.clone()
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    return host.copy_(rows, non_blocking=True)
