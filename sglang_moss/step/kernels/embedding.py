"""Embedding sums: a text row and `n_vq` code rows a position, added in fp32, rounded once.

    out[i] = text_table[text_ids[i]] + sum over k of code_table[k * n_codes + codes[i, k]]

`begin_step` takes the codes from the slots and moves these on in the same launch.

Torch references: `eager.embed_rows`, `eager.begin_step`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.step.slots import SlotState

_BLOCK_D = 512
_NUM_WARPS = 2


def embed_rows(text_ids: Tensor, codes: Tensor, text_table: Tensor, code_table: Tensor) -> Tensor:
    """[N] text ids and [N, n_vq] int64 codes -> [N, D] (see `eager.embed_rows`); both may be columns of rows."""
    assert codes.stride(1) == 1, codes.stride()
    n_positions, n_vq = codes.shape
    out, block_d, grid = _output(n_positions, text_table)
    launch: Any = _embed_rows_kernel[grid]  # takes `num_warps` too, which its type hides
    launch(
        text_ids,
        text_ids.stride(0),
        codes,
        codes.stride(0),
        text_table,
        code_table,
        out,
        text_table.shape[1],
        N_CODES=len(code_table) // n_vq,
        N_VQ=n_vq,
        BLOCK_D=block_d,
        num_warps=_NUM_WARPS,
    )
    return out


def begin_step(state: SlotState, slots: Tensor, text_ids: Tensor, text_table: Tensor, code_table: Tensor) -> Tensor:
    """Move the slots [B] past the rows they drew last, and embed those rows: [B, D] (see `eager.begin_step`)."""
    tokens = state.tokens
    out, block_d, grid = _output(len(slots), text_table)
    launch: Any = _begin_step_kernel[grid]
    launch(
        slots,
        text_ids,
        state.codes,
        state.audio_rows,
        state.flush_rows,
        state.ended.view(torch.uint8),
        state.seen.view(torch.uint8),
        text_table,
        code_table,
        out,
        text_table.shape[1],
        AUDIO_START=tokens.audio_start,
        GEN_SLOT=tokens.gen_slot,
        DELAY_SLOT=tokens.delay_slot,
        AUDIO_END=tokens.audio_end,
        IM_END=tokens.im_end,
        N_CODES=state.n_codes,
        N_VQ=tokens.n_vq,
        BLOCK_VQ=triton.next_power_of_2(tokens.n_vq),
        BLOCK_D=block_d,
        num_warps=_NUM_WARPS,
    )
    return out


def _output(n_positions: int, table: Tensor) -> tuple[Tensor, int, tuple[int, int]]:
    d = table.shape[1]
    block_d = min(_BLOCK_D, int(triton.next_power_of_2(d)))
    out = torch.empty(n_positions, d, dtype=table.dtype, device=table.device)
    return out, block_d, (n_positions, int(triton.cdiv(d, block_d)))


@triton.jit
def _embedding_sum(
    text_id,
    codes_ptr,
    text_table_ptr,
    code_table_ptr,
    d,
    D,
    N_CODES: tl.constexpr,
    N_VQ: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    inside = d < D
    total = tl.zeros((BLOCK_D,), tl.float32)
    for k in tl.static_range(N_VQ):  # pyright: ignore[reportGeneralTypeIssues] (Triton's own types)
        at = (tl.load(codes_ptr + k) + k * N_CODES).to(tl.int64)
        total += tl.load(code_table_ptr + at * D + d, mask=inside, other=0.0).to(tl.float32)
    return tl.load(text_table_ptr + text_id.to(tl.int64) * D + d, mask=inside, other=0.0).to(tl.float32) + total


@triton.jit
def _embed_rows_kernel(
    text_ids_ptr,
    text_ids_stride,
    codes_ptr,
    codes_stride,
    text_table_ptr,
    code_table_ptr,
    out_ptr,
    D,
    N_CODES: tl.constexpr,
    N_VQ: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    text_id = tl.load(text_ids_ptr + i * text_ids_stride)
    total = _embedding_sum(
        text_id, codes_ptr + i * codes_stride, text_table_ptr, code_table_ptr, d, D, N_CODES, N_VQ, BLOCK_D
    )
    tl.store(out_ptr + i * D + d, total.to(out_ptr.dtype.element_ty), mask=d < D)


@triton.jit
def _begin_step_kernel(
    slots_ptr,
    text_ids_ptr,
    codes_ptr,
    audio_rows_ptr,
    flush_rows_ptr,
    ended_ptr,
    seen_ptr,
    text_table_ptr,
    code_table_ptr,
    out_ptr,
    D,
    AUDIO_START: tl.constexpr,
    GEN_SLOT: tl.constexpr,
    DELAY_SLOT: tl.constexpr,
    AUDIO_END: tl.constexpr,
    IM_END: tl.constexpr,
    N_CODES: tl.constexpr,
    N_VQ: tl.constexpr,
    BLOCK_VQ: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    slot = tl.load(slots_ptr + i).to(tl.int64)
    text_id = tl.load(text_ids_ptr + i)
    codes_ptr += slot * N_VQ
    total = _embedding_sum(text_id, codes_ptr, text_table_ptr, code_table_ptr, d, D, N_CODES, N_VQ, BLOCK_D)
    tl.store(out_ptr + i * D + d, total.to(out_ptr.dtype.element_ty), mask=d < D)
    # The first program of a request changes its state, of which the others read nothing but the codes. Slot 0 is
    # padding, shared by several requests of one launch.
    if (tl.program_id(1) == 0) & (slot != 0):
        starts = (text_id == AUDIO_START).to(tl.int32)
        flushes = (text_id == DELAY_SLOT).to(tl.int32)
        continues = (text_id == GEN_SLOT).to(tl.int32) + flushes
        audio_rows = tl.load(audio_rows_ptr + slot)
        flush_rows = tl.load(flush_rows_ptr + slot)
        tl.store(audio_rows_ptr + slot, starts + continues * (audio_rows + 1))
        tl.store(flush_rows_ptr + slot, flushes * (flush_rows + 1))
        tl.store(ended_ptr + slot, ((text_id == AUDIO_END) | (text_id == IM_END)).to(tl.uint8))
        k = tl.arange(0, BLOCK_VQ)
        codes = tl.load(codes_ptr + k, mask=k < N_VQ, other=0)
        history = slot * 2 + (k > 0).to(tl.int64)
        tl.store(seen_ptr + history * N_CODES + codes, (codes >= 0).to(tl.uint8), mask=k < N_VQ)
