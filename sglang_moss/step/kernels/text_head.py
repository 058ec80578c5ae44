"""Logits over the whole text vocabulary, for those requests alone that may draw any text id.

Inside the audio two rows of the head decide at most (see `text_draw`); reading all of them would take a sixth of the
time of the whole model's weights. So a program returns at once when no request of its tile wants the vocabulary.

Torch reference: `functional.linear`, masked by `delay.state.allowed_text`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.step.slots import SlotState

_BLOCK_V = 128
_BLOCK_D = 64
_SMALL_BATCH, _BLOCK_B = 16, 64


def text_logits(hidden: Tensor, text_head: Tensor, state: SlotState, slots: Tensor, seq_lens: Tensor) -> Tensor:
    """[B, D] hidden states and the [V, D] head -> [B, V] logits in their dtype, -inf where an id is not allowed.

    Lines of requests for which `wants_vocabulary` does not hold are undefined.
    """
    assert hidden.is_contiguous(), hidden.stride()
    assert text_head.is_contiguous(), text_head.stride()
    (n_requests, d), vocab_size, tokens = hidden.shape, len(text_head), state.tokens
    logits = torch.empty(n_requests, vocab_size, dtype=hidden.dtype, device=hidden.device)
    block_b = _SMALL_BATCH if n_requests <= _SMALL_BATCH else _BLOCK_B
    grid = (triton.cdiv(vocab_size, _BLOCK_V), triton.cdiv(n_requests, block_b))
    launch: Any = _text_head_kernel[grid]  # takes `num_warps` too, which its type hides
    launch(
        hidden,
        text_head,
        logits,
        slots,
        seq_lens,
        state.prompt_len,
        state.audio_rows,
        state.last_audio_row,
        state.ended.view(torch.uint8),
        n_requests,
        vocab_size,
        d,
        TEXT_PAD=tokens.text_pad,
        GEN_SLOT=tokens.gen_slot,
        DELAY_SLOT=tokens.delay_slot,
        AUDIO_END=tokens.audio_end,
        IM_END=tokens.im_end,
        N_VQ=tokens.n_vq,
        BLOCK_B=block_b,
        BLOCK_V=_BLOCK_V,
        BLOCK_D=_BLOCK_D,
        num_warps=4,
        num_stages=4,
    )
    return logits


@triton.jit
def wants_vocabulary(slot, audio_rows, last_audio_row, ended):
    """Whether a slot may draw any text id: outside the audio, of no fixed length, and its row is read by somebody."""
    return (slot != 0) & (ended == 0) & (audio_rows == 0) & (last_audio_row == 0)


@triton.jit(do_not_specialize=["n_requests"])
def _text_head_kernel(
    hidden_ptr,
    head_ptr,
    logits_ptr,
    slots_ptr,
    seq_lens_ptr,
    prompt_len_ptr,
    audio_rows_ptr,
    last_audio_row_ptr,
    ended_ptr,
    n_requests,
    V,
    D,
    TEXT_PAD: tl.constexpr,
    GEN_SLOT: tl.constexpr,
    DELAY_SLOT: tl.constexpr,
    AUDIO_END: tl.constexpr,
    IM_END: tl.constexpr,
    N_VQ: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    b = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    exists = b < n_requests
    slots = tl.load(slots_ptr + b, mask=exists, other=0).to(tl.int64)
    audio_rows = tl.load(audio_rows_ptr + slots)
    last_audio_row = tl.load(last_audio_row_ptr + slots)
    wanted = wants_vocabulary(slots, audio_rows, last_audio_row, tl.load(ended_ptr + slots))
    if tl.max(wanted.to(tl.int32), axis=0) == 0:
        return

    v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    d = tl.arange(0, BLOCK_D)
    head_ptrs = head_ptr + v.to(tl.int64)[:, None] * D + d[None, :]
    hidden_ptrs = hidden_ptr + b.to(tl.int64)[None, :] * D + d[:, None]
    total = tl.zeros((BLOCK_V, BLOCK_B), tl.float32)
    for first in range(0, D, BLOCK_D):
        inside = first + d < D
        head = tl.load(head_ptrs + first, mask=(v < V)[:, None] & inside[None, :], other=0.0)
        hidden = tl.load(hidden_ptrs + first, mask=exists[None, :] & inside[:, None], other=0.0)
        total = tl.dot(head, hidden, total, input_precision="ieee")

    row = tl.load(seq_lens_ptr + b, mask=exists, other=0) - tl.load(prompt_len_ptr + slots)
    never = (v == TEXT_PAD) | (v == GEN_SLOT) | (v == DELAY_SLOT) | (v == AUDIO_END)
    not_yet = (v == IM_END)[:, None] & (row <= N_VQ)[None, :]
    total = tl.where(never[:, None] | not_yet, -float("inf"), total)
    logits_ptrs = logits_ptr + b.to(tl.int64)[None, :] * V + v[:, None]
    tl.store(logits_ptrs, total.to(logits_ptr.dtype.element_ty), mask=exists[None, :] & (v < V)[:, None])
