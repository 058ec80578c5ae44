"""Codes of the next rows: one program for each request and codebook.

    temperature, repetition penalty, top-k, top-p, draw; a closed codebook gives the pad code

Torch reference: the codes of `eager.draw_rows`, kept by `SlotState.write`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.step.kernels.draws import draw_from_line, uniform
from sglang_moss.step.slots import SlotState


def draw_codes(audio_logits: Tensor, state: SlotState, slots: Tensor, seq_lens: Tensor, rows: Tensor) -> None:
    """Draw codes from [B, n_vq, n_codes] logits into columns 1 to n_vq of `rows` [B, 1 + n_vq] and into the slots."""
    n_requests, n_vq, n_codes = audio_logits.shape
    assert audio_logits.is_contiguous(), audio_logits.stride()
    pad_code = state.tokens.pad_code
    n_drawn = n_codes - 1 if pad_code == n_codes - 1 else n_codes  # a pad code at the end is not even loaded
    block = triton.next_power_of_2(n_drawn)
    launch: Any = _draw_codes_kernel[(n_requests, n_vq)]  # takes `num_warps` too, which its type hides
    launch(
        audio_logits,
        slots,
        seq_lens,
        state.prompt_len,
        state.audio_rows,
        state.flush_rows,
        state.seen.view(torch.uint8),
        state.seed,
        state.temperature,
        state.top_k,
        state.top_p,
        state.penalty,
        state.codes,
        rows,
        PAD_CODE=pad_code,
        N_VQ=n_vq,
        N_CODES=n_codes,
        N_DRAWN=n_drawn,
        BLOCK=block,
        num_warps=max(1, min(8, block // 256)),
    )


@triton.jit
def _draw_codes_kernel(
    logits_ptr,
    slots_ptr,
    seq_lens_ptr,
    prompt_len_ptr,
    audio_rows_ptr,
    flush_rows_ptr,
    seen_ptr,
    seed_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    penalty_ptr,
    codes_ptr,
    rows_ptr,
    PAD_CODE: tl.constexpr,
    N_VQ: tl.constexpr,
    N_CODES: tl.constexpr,
    N_DRAWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    codebook = tl.program_id(1)
    slot = tl.load(slots_ptr + i).to(tl.int64)
    is_open = (tl.load(flush_rows_ptr + slot) <= codebook) & (codebook < tl.load(audio_rows_ptr + slot))
    code = tl.full((), PAD_CODE, tl.int32)
    if is_open:
        index = tl.arange(0, BLOCK)
        allowed = (index < N_DRAWN) & (index != PAD_CODE)
        temperature = tl.load(temperature_ptr + slot * 2 + 1)
        penalty = tl.load(penalty_ptr + slot)
        history = slot * 2 + (codebook > 0).to(tl.int64)
        seen = tl.load(seen_ptr + history * N_CODES + index, mask=allowed, other=0) != 0
        logits = tl.load(logits_ptr + (i * N_VQ + codebook) * N_CODES + index, mask=allowed, other=0.0).to(tl.float32)
        logits = tl.div_rn(logits, tl.where(temperature > 0, temperature, 1.0))
        penalised = tl.where(logits > 0, tl.div_rn(logits, penalty), logits * penalty)
        logits = tl.where(seen, penalised, logits)
        logits = tl.where(allowed, logits, -float("inf"))
        row = tl.load(seq_lens_ptr + i).to(tl.int64) - tl.load(prompt_len_ptr + slot)
        drawn_at = uniform(tl.load(seed_ptr + slot), row, codebook + 1)
        top_k = tl.load(top_k_ptr + slot * 2 + 1)
        top_p = tl.load(top_p_ptr + slot * 2 + 1)
        code = draw_from_line(logits, index, N_DRAWN, temperature, top_k, top_p, drawn_at)
    tl.store(rows_ptr + i * (N_VQ + 1) + codebook + 1, code.to(tl.int64))
    tl.store(codes_ptr + slot * N_VQ + codebook, code.to(tl.int64))
