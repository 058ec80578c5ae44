"""Text id of the next row: one program for each request.

In the audio an id is forced, or two rows of the text head decide between going on and the flush; elsewhere the id is
drawn from the whole vocabulary, whose logits `text_head` has prepared.

Torch reference: the text ids of `eager.draw_rows`, with `delay.state.allowed_text`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.step.kernels.draws import draw_from_line, uniform
from sglang_moss.step.kernels.text_head import wants_vocabulary
from sglang_moss.step.kernels.vocabulary_draw import draw_from_vocabulary
from sglang_moss.step.slots import SlotState

_BLOCK_D = 1024
_BLOCK_V = 4096
_NUM_WARPS = 8
# Bits of float32 that values of a dtype differ in: its keys are found in so many passes over the vocabulary.
_KEY_BITS = {torch.bfloat16: 16, torch.float16: 19, torch.float32: 32}


def draw_text(
    text_logits: Tensor,
    hidden: Tensor,
    text_head: Tensor,
    state: SlotState,
    slots: Tensor,
    seq_lens: Tensor,
    rows: Tensor,
) -> None:
    """Draw text ids into column 0 of `rows` [B, 1 + n_vq].

    Args:
        text_logits: [B, V] of `text_head.text_logits`; read where the whole vocabulary is wanted.
        hidden: [B, D].
        text_head: [V, D].
    """
    tokens, vocab_size, d = state.tokens, text_logits.shape[1], hidden.shape[1]
    launch: Any = _draw_text_kernel[(len(slots),)]  # takes `num_warps` too, which its type hides
    launch(
        text_logits,
        hidden,
        text_head,
        slots,
        seq_lens,
        state.prompt_len,
        state.audio_rows,
        state.flush_rows,
        state.last_audio_row,
        state.ended.view(torch.uint8),
        state.seed,
        state.temperature,
        state.top_k,
        state.top_p,
        rows,
        vocab_size,
        d,
        TEXT_PAD=tokens.text_pad,
        AUDIO_START=tokens.audio_start,
        GEN_SLOT=tokens.gen_slot,
        DELAY_SLOT=tokens.delay_slot,
        AUDIO_END=tokens.audio_end,
        N_VQ=tokens.n_vq,
        KEY_BITS=_KEY_BITS[text_logits.dtype],
        BLOCK_D=min(_BLOCK_D, triton.next_power_of_2(d)),
        BLOCK_V=min(_BLOCK_V, triton.next_power_of_2(vocab_size)),
        BLOCK_PAIR=32 * _NUM_WARPS,
        num_warps=_NUM_WARPS,
    )


@triton.jit
def _draw_text_kernel(
    text_logits_ptr,
    hidden_ptr,
    head_ptr,
    slots_ptr,
    seq_lens_ptr,
    prompt_len_ptr,
    audio_rows_ptr,
    flush_rows_ptr,
    last_audio_row_ptr,
    ended_ptr,
    seed_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    rows_ptr,
    V,
    D,
    TEXT_PAD: tl.constexpr,
    AUDIO_START: tl.constexpr,
    GEN_SLOT: tl.constexpr,
    DELAY_SLOT: tl.constexpr,
    AUDIO_END: tl.constexpr,
    N_VQ: tl.constexpr,
    KEY_BITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_PAIR: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + i).to(tl.int64)
    audio_rows = tl.load(audio_rows_ptr + slot)
    flush_rows = tl.load(flush_rows_ptr + slot)
    last_audio_row = tl.load(last_audio_row_ptr + slot)
    ended = tl.load(ended_ptr + slot)
    row = tl.load(seq_lens_ptr + i).to(tl.int64) - tl.load(prompt_len_ptr + slot)
    temperature = tl.load(temperature_ptr + slot * 2)
    top_k = tl.load(top_k_ptr + slot * 2)
    top_p = tl.load(top_p_ptr + slot * 2)
    drawn_at = uniform(tl.load(seed_ptr + slot), row, tl.full((), 0, tl.int32))

    # What is forced, if anything is.
    must_flush = (last_audio_row > 0) & (audio_rows >= last_audio_row)
    text_id = tl.where((flush_rows > 0) | must_flush, DELAY_SLOT, GEN_SLOT)
    text_id = tl.where(flush_rows >= N_VQ, AUDIO_END, text_id)
    text_id = tl.where(audio_rows == 0, AUDIO_START, text_id)
    text_id = tl.where((slot == 0) | (ended != 0), TEXT_PAD, text_id)

    if (slot != 0) & (audio_rows > 0) & (flush_rows == 0) & (last_audio_row == 0) & (row > 0):
        low = GEN_SLOT if GEN_SLOT < DELAY_SLOT else DELAY_SLOT
        high = DELAY_SLOT if GEN_SLOT < DELAY_SLOT else GEN_SLOT
        index = tl.arange(0, BLOCK_PAIR)
        logits = tl.where(
            index == 0,
            _logit(hidden_ptr + i * D, head_ptr, low, D, BLOCK_D),
            _logit(hidden_ptr + i * D, head_ptr, high, D, BLOCK_D),
        )
        logits = tl.div_rn(logits, tl.where(temperature > 0, temperature, 1.0))
        logits = tl.where(index < 2, logits, -float("inf"))
        text_id = tl.where(draw_from_line(logits, index, 2, temperature, top_k, top_p, drawn_at) == 0, low, high)
    if wants_vocabulary(slot, audio_rows, last_audio_row, ended):
        line_ptr = text_logits_ptr + i * V
        text_id = draw_from_vocabulary(line_ptr, V, temperature, top_k, top_p, drawn_at, KEY_BITS, BLOCK_V)
    tl.store(rows_ptr + i * (N_VQ + 1), text_id.to(tl.int64))


@triton.jit
def _logit(hidden_ptr, head_ptr, text_id, D, BLOCK_D: tl.constexpr):
    """One entry of the text head's output: added in fp32, rounded to the model's dtype as a GEMM's output is."""
    products = tl.zeros((BLOCK_D,), tl.float32)
    weight_ptr = head_ptr + tl.full((), text_id, tl.int64) * D
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        weight = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
        products += weight * tl.load(hidden_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    return tl.sum(products, axis=0).to(hidden_ptr.dtype.element_ty).to(tl.float32)
