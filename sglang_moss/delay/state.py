"""Delay state: which text ids and which codebooks one request's next row may hold.

One row is a text id and `n_vq` codes. Text ids drive the state; for n_vq = 3 and a segment of 3 frames:

    text id      start  gen   gen   delay  delay  delay  end        what the *next* row sees
    audio_rows     1     2     3     4      5      6      0         rows since <audio_start>, itself included
    flush_rows     0     0     0     1      2      3      0         delay slots so far
    codebook 0           c00   c10   c20    .      .      .         open while flush_rows <= k < audio_rows,
    codebook 1            .    c01   c11    c21    .      .         both taken before the row is drawn
    codebook 2            .     .    c02    c12    c22    .

The first delay slot is drawn, the other n_vq - 1 and the end that follows are forced. Everything here works on tensors
with one entry per request; `advance` and `replay` also take plain integers.

Source: MOSS-TTS `MossTTSDelayModel.generate` (masks of the first step and of the early end of turn), MOSS-TTSD served
path (the request ends at <audio_end>).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sglang_moss.config import SpecialTokens

Count = TypeVar("Count", int, Tensor)


@dataclass
class DelayState:
    """Where requests stand on the staircase before their next row is drawn; all tensors are [B]."""

    audio_rows: Tensor  # int32, rows since <audio_start>, itself included; 0 outside audio
    flush_rows: Tensor  # int32, delay slots since the last generation slot
    row: Tensor  # int32, index of the next row among the generated ones, 0-based
    last_audio_row: Tensor  # int32, `audio_rows` at which the flush must begin and not before; 0: the model decides


def advance(audio_rows: Count, flush_rows: Count, text_id: Count, tokens: SpecialTokens) -> tuple[Count, Count]:
    """(audio_rows, flush_rows) after a row with `text_id`, for integers or for [B] tensors."""
    starts = text_id == tokens.audio_start
    flushes = text_id == tokens.delay_slot
    continues = (text_id == tokens.gen_slot) | flushes
    return starts + continues * (audio_rows + 1), flushes * (flush_rows + 1)


def ends(text_id: Count, tokens: SpecialTokens) -> Count:
    """Whether a drawn row with `text_id` is its request's last, for an integer or for [B] tensors."""
    return (text_id == tokens.audio_end) | (text_id == tokens.im_end)


def replay(text_ids: np.ndarray, tokens: SpecialTokens) -> tuple[int, int]:
    """(audio_rows, flush_rows) after the rows with `text_ids` [S]; equals folding `advance` over them."""
    in_audio = (text_ids == tokens.gen_slot) | (text_ids == tokens.delay_slot)
    run = _trailing(in_audio)
    opened = run < len(text_ids) and text_ids[-run - 1] == tokens.audio_start
    flush_rows = _trailing(text_ids == tokens.delay_slot)
    return (run + 1 if opened else run), flush_rows


def open_codebooks(state: DelayState, n_vq: int) -> Tensor:
    """[B, n_vq] bool: the codebooks drawn on the next row; the others get the pad code."""
    k = torch.arange(n_vq, device=state.audio_rows.device)
    return (state.flush_rows[:, None] <= k) & (k < state.audio_rows[:, None])


def allowed_text(state: DelayState, vocab_size: int, tokens: SpecialTokens) -> Tensor:
    """[B, vocab_size] bool: the text ids that the next row may hold; at least one in every line."""
    n_vq = tokens.n_vq
    outside = state.audio_rows == 0
    flushing = state.flush_rows > 0
    drained = state.flush_rows >= n_vq
    bounded = state.last_audio_row > 0
    drawing = ~outside & ~flushing
    must_flush = bounded & (state.audio_rows >= state.last_audio_row)
    may_flush = torch.where(bounded, must_flush, state.row > 0)

    allowed = (outside & ~bounded)[:, None].expand(-1, vocab_size).clone()
    allowed[:, tokens.text_pad] = False
    allowed[:, tokens.im_end] &= state.row > n_vq
    allowed[:, tokens.audio_start] |= outside & bounded
    allowed[:, tokens.gen_slot] = drawing & ~must_flush
    allowed[:, tokens.delay_slot] = (drawing & may_flush) | (flushing & ~drained)
    allowed[:, tokens.audio_end] = drained
    return allowed


def _trailing(flags: np.ndarray) -> int:
    """How many of the last entries of `flags` are true, in a row."""
    false_at = np.flatnonzero(~flags)
    return len(flags) if len(false_at) == 0 else len(flags) - 1 - int(false_at[-1])
