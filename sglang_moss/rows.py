"""Draw one row per request: a text id and `n_vq` codes, from the logits of all channels and the slots' state.

Plain torch on tensors of fixed shape: runs inside a captured graph, for any mix of settings.
"""

import torch
from torch import Tensor

from sglang_moss.delay import DelayState, allowed_text, open_codebooks
from sglang_moss.sampling import draw, filtered_probs, penalise, scale, uniform
from sglang_moss.slots import SlotState

_TEXT, _AUDIO = 0, 1  # columns of the settings that text and audio have apart


def draw_rows(text_logits: Tensor, audio_logits: Tensor, state: SlotState, slots: Tensor, seq_lens: Tensor) -> Tensor:
    """Draw the next row of every request.

    Args:
        text_logits: [B, V] float32.
        audio_logits: [B, n_vq, audio_vocab_size + 1] float32; the last column is the pad code, never drawn.
        state: slot tensors; read only.
        slots: [B] int64.
        seq_lens: [B] rows that each sequence holds already.
    Returns:
        [B, 1 + n_vq] int64; the pad code where a codebook is closed.
    """
    delay = state.delay_state(slots, seq_lens)
    text = _draw_text(text_logits, delay, state, slots)
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
