"""One decoding step beside the backbone, on a GPU: the same functions as `eager`, in a handful of launches.

begin_step     state advance and embedding sum      1 launch
finish_step    text head, unless it is not needed   1
               text draw                            1
               codes                                1
"""

import torch
from torch import Tensor

from sglang_moss.step.kernels.audio_draw import draw_codes
from sglang_moss.step.kernels.embedding import begin_step, embed_rows
from sglang_moss.step.kernels.text_draw import draw_text
from sglang_moss.step.kernels.text_head import text_logits
from sglang_moss.step.slots import SlotState

__all__ = ["begin_step", "embed_rows", "finish_step"]


def finish_step(
    state: SlotState, slots: Tensor, seq_lens: Tensor, hidden: Tensor, text_head: Tensor, audio_logits: Tensor
) -> Tensor:
    """Draw the next row of every request, [B, 1 + n_vq], and keep its codes in the slot (see `eager.finish_step`)."""
    rows = torch.empty(len(slots), 1 + state.tokens.n_vq, dtype=torch.int64, device=slots.device)
    vocabulary = text_logits(hidden, text_head, state, slots, seq_lens)
    draw_text(vocabulary, hidden, text_head, state, slots, seq_lens, rows)
    draw_codes(audio_logits, state, slots, seq_lens, rows)
    return rows
