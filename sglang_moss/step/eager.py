"""One decoding step beside the backbone, in plain torch: what is embedded before it, and the row drawn after it.

    text ids, slots -> `begin_step` -> [B, D] -> backbone -> [B, D], audio logits -> `finish_step` -> next rows

This is the rule, and what runs without a GPU. `kernels.step` has the same functions as Triton kernels. Everything works
on tensors of fixed shape, for any mix of settings.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sglang_moss.delay.state import DelayState, allowed_text, open_codebooks
from sglang_moss.step.sampling import draw, filtered_probs, penalise, scale, uniform
from sglang_moss.step.slots import SlotState

_TEXT, _AUDIO = 0, 1  # columns of the settings that text and audio have apart
NOT_FINITE = -1  # in the place of codebook 0: no code, and no number to draw one from


def begin_step(state: SlotState, slots: Tensor, text_ids: Tensor, text_table: Tensor, code_table: Tensor) -> Tensor:
    """Move the slots past the rows they drew last, and embed those rows.

    Args:
        slots: [B] int64.
        text_ids: [B] the rows' text ids, accepted by SGLang.
        text_table: [V, D].
        code_table: [n_vq * n_codes, D], codebook k's rows from k * n_codes.
    Returns:
        [B, D] in the tables' dtype.
    """
    state.advance(slots, text_ids)
    return embed_rows(text_ids, state.codes[slots], text_table, code_table)


def embed_rows(text_ids: Tensor, codes: Tensor, text_table: Tensor, code_table: Tensor) -> Tensor:
    """[N] text ids and [N, n_vq] codes -> [N, D]: the sum of their embeddings, in fp32, rounded once."""
    n_vq = codes.shape[1]
    offsets = torch.arange(n_vq, device=codes.device) * (len(code_table) // n_vq)
    summed = code_table[codes + offsets].float().sum(dim=1)
    return (text_table[text_ids].float() + summed).to(text_table.dtype)


def finish_step(
    state: SlotState, slots: Tensor, seq_lens: Tensor, hidden: Tensor, text_head: Tensor, audio_logits: Tensor
) -> Tensor:
    """Draw the next row of every request and keep its codes in the slot.

    Args:
        slots: [B] int64.
        seq_lens: [B] rows that each sequence holds already.
        hidden: [B, D] after the backbone.
        text_head: [V, D].
        audio_logits: [B, n_vq, n_codes]; the pad code is never drawn.
    Returns:
        [B, 1 + n_vq] int64.
    """
    text_logits = functional.linear(hidden, text_head)
    rows = draw_rows(text_logits.float(), audio_logits.float(), state, slots, seq_lens)
    state.write(slots, rows[:, 1:])
    return rows


def mark_not_finite(rows: Tensor, audio_logits: Tensor) -> Tensor:
    """Rows as they leave the device: `NOT_FINITE` in codebook 0 where the model's output is no number.

    The draw itself takes any logits and stays in range, so that nothing of one request can harm another; whoever
    accepts the row ends its request.

    Args:
        rows: [B, 1 + n_vq] int64.
        audio_logits: [B, n_vq, n_codes].
    Returns:
        [B, 1 + n_vq] int64, the same tensor.
    """
    is_finite = torch.isfinite(audio_logits.amax(dim=(1, 2)))
    rows[:, 1] = torch.where(is_finite, rows[:, 1], NOT_FINITE)
    return rows


def draw_rows(text_logits: Tensor, audio_logits: Tensor, state: SlotState, slots: Tensor, seq_lens: Tensor) -> Tensor:
    """Draw the next row of every request.

    Args:
        text_logits: [B, V] float32.
        audio_logits: [B, n_vq, n_codes] float32.
        state: slot tensors; read only.
        slots: [B] int64.
        seq_lens: [B] rows that each sequence holds already.
    Returns:
        [B, 1 + n_vq] int64; the pad code where a codebook is closed, the text pad where nobody reads the row.
    """
    delay = state.delay_state(slots, seq_lens)
    text = torch.where(state.idle(slots), state.tokens.text_pad, _draw_text(text_logits, delay, state, slots))
    codes = _draw_codes(audio_logits, delay, state, slots)
    return torch.cat([text[:, None], codes], dim=1)


def _draw_text(logits: Tensor, delay: DelayState, state: SlotState, slots: Tensor) -> Tensor:
    temperature = state.temperature[slots, _TEXT]
    logits = scale(logits, temperature)
    logits = logits.masked_fill(~allowed_text(delay, logits.shape[-1], state.tokens), -torch.inf)
    probs = filtered_probs(logits, temperature, state.top_k[slots, _TEXT], state.top_p[slots, _TEXT])
    return draw(probs, uniform(state.seed[slots], delay.row, torch.zeros_like(delay.row)))


def _draw_codes(logits: Tensor, delay: DelayState, state: SlotState, slots: Tensor) -> Tensor:
    tokens = state.tokens
    n_requests, n_vq, n_codes = logits.shape
    codebook = torch.arange(n_vq, device=logits.device)

    def per_codebook(setting: Tensor) -> Tensor:
        return setting[:, None].expand(-1, n_vq).reshape(-1)

    temperature = per_codebook(state.temperature[slots, _AUDIO])
    seen = state.seen[slots][:, (codebook > 0).long()].reshape(-1, n_codes)
    flat = scale(logits.reshape(-1, n_codes), temperature)
    flat = penalise(flat, seen, per_codebook(state.penalty[slots]))
    flat[:, tokens.pad_code] = -torch.inf
    probs = filtered_probs(
        flat, temperature, per_codebook(state.top_k[slots, _AUDIO]), per_codebook(state.top_p[slots, _AUDIO])
    )
    uniforms = uniform(state.seed[slots][:, None], delay.row[:, None], codebook + 1)
    codes = draw(probs, uniforms.reshape(-1)).reshape(n_requests, n_vq)
    return torch.where(open_codebooks(delay, n_vq), codes, tokens.pad_code)
