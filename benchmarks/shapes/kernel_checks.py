"""Whether the decoding step's kernels draw what plain torch draws, on a GPU and at the real shapes.

A draw may differ where its uniform lies within rounding of the border of two tokens: sums are added in another order,
and a dot product is rounded to the model's dtype.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sglang_moss.delay.state import DelayState, allowed_text
from sglang_moss.step import eager as rows
from sglang_moss.step import sampling
from sglang_moss.step.kernels import step
from sglang_moss.step.kernels.text_head import text_logits
from sglang_moss.step.slots import SlotState

from .kernel_inputs import DEVICE, Inputs

# Farther from its interval than this, a draw is not explained by rounding.
_SUM_ROUNDING = 1e-5
_LOGIT_ROUNDING = {torch.bfloat16: 3e-2, torch.float16: 4e-3}


def checks(inputs: Inputs, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Kernels against plain torch on the same inputs, with mixed settings."""
    plain, fast = (inputs.state(in_audio=True, mixed=True) for _ in range(2))
    expected, found = inputs.begin(rows, plain), inputs.begin(step, fast)
    yield {
        "check": "begin_step",
        "state_equal": all(torch.equal(value[1:], fast.tensors()[name][1:]) for name, value in plain.tensors().items()),
        "elements": found.numel(),
        "differ": int((found != expected).sum()),
        "largest_relative_difference": float(((found - expected).abs() / expected.abs().clamp(min=1e-2)).max()),
    }
    for in_audio in (True, False):
        state, other = (inputs.state(in_audio, mixed=True) for _ in range(2))
        delay = state.delay_state(inputs.slots, inputs.seq_lens)
        drawn = inputs.finish(step, state)
        rows_plain = inputs.finish(rows, other)
        where = "in audio" if in_audio else "before audio"
        if in_audio:
            yield {"check": "codes", **_compare_codes(inputs, other, drawn, rows_plain)}
            logits = functional.linear(inputs.hidden[0], inputs.weights["text_head"]).float()
            tolerance = _LOGIT_ROUNDING[dtype]
        else:
            head = inputs.weights["text_head"]
            ours = text_logits(inputs.hidden[0], head, other, inputs.slots, inputs.seq_lens).float()
            theirs = functional.linear(inputs.hidden[0], head).float()
            error = torch.where(ours == -torch.inf, 0.0, ours - theirs).abs().max()
            yield {"check": "text_logits", "largest_difference": float(error), "largest": float(theirs.abs().max())}
            logits, tolerance = ours, _SUM_ROUNDING
        probs = _text_probs(logits, other, inputs, delay)
        uniforms = sampling.uniform(other.seed[inputs.slots], delay.row, torch.zeros_like(delay.row))
        expected_ids = sampling.draw(probs, uniforms)
        yield {"check": f"text ids {where}", **_compare(probs, uniforms, drawn[:, 0], expected_ids, tolerance)}


def _text_probs(logits: Tensor, state: SlotState, inputs: Inputs, delay: DelayState) -> Tensor:
    temperature = state.temperature[inputs.slots, 0]
    allowed = allowed_text(delay, logits.shape[-1], state.tokens)
    scaled = sampling.scale(logits, temperature).masked_fill(~allowed, -torch.inf)
    return sampling.filtered_probs(scaled, temperature, state.top_k[inputs.slots, 0], state.top_p[inputs.slots, 0])


def _compare_codes(inputs: Inputs, state: SlotState, drawn: Tensor, expected: Tensor) -> dict[str, Any]:
    n_vq, slots = inputs.shape.n_vq, inputs.slots
    codebook = torch.arange(n_vq, device=DEVICE).repeat(inputs.n)
    slot = slots.repeat_interleave(n_vq)
    temperature = state.temperature[slot, 1]
    logits = sampling.scale(inputs.audio_logits[0].float().flatten(0, 1), temperature)
    logits = sampling.penalise(logits, state.seen[slot, (codebook > 0).long()], state.penalty[slot])
    logits[:, state.tokens.pad_code] = -torch.inf
    probs = sampling.filtered_probs(logits, temperature, state.top_k[slot, 1], state.top_p[slot, 1])
    row = (inputs.seq_lens - state.prompt_len[slots]).repeat_interleave(n_vq)
    uniforms = sampling.uniform(state.seed[slot], row, codebook + 1)
    return _compare(probs, uniforms, drawn[:, 1:].flatten(), expected[:, 1:].flatten(), _SUM_ROUNDING)


def _compare(probs: Tensor, uniforms: Tensor, drawn: Tensor, expected: Tensor, tolerance: float) -> dict[str, Any]:
    """How many draws [N] differ, and how far their uniforms lie outside the intervals of what was drawn instead."""
    high = probs.double().cumsum(-1) / probs.double().sum(-1, keepdim=True)
    high_at = high.gather(-1, drawn[:, None])[:, 0]
    low_at = high_at - probs.double().gather(-1, drawn[:, None])[:, 0]
    distance = torch.maximum(low_at - uniforms, uniforms - high_at).clamp(min=0)
    differs = drawn != expected
    return {
        "draws": len(drawn),
        "differ": int(differs.sum()),
        "largest_distance": float(distance.max()),
        "beyond_rounding": int((distance > tolerance).sum()),
    }
