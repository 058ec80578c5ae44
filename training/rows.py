"""Rows of one example, and which of them are learnt.

    prompt (P rows)   the user turn, as `sglang_moss.request` writes it for a request
    P                 <|audio_start|>                    pad codes
    P + 1 + t         gen slot, t = 0 .. T-1             the delay pattern: code k of frame t on row P + 1 + t + k
    P + 1 + T + d     delay slot, d = 0 .. n_vq-2
    then              <|audio_end|> <|im_end|> "\\n"      pad codes

The layout `published` is the one above, which the published weights have learnt. A decoder, though, still draws code 0
on the row of its first delay slot, so that G gen slots give G + 1 frames. The layout `served` learns just that: T - 1
gen slots and n_vq delay slots, nothing else changed. It is for weights that start from nothing.

Row s is asked for row s + 1. Learnt are the text ids from <|audio_start|> on, and the codes of the target.

Source: MOSS-TTS fine-tuning, dataset and collator.
"""

from typing import Literal, TypeAlias, get_args

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.layout import apply_delay
from sglang_moss.request.prompt import Tokenizer, user_turn_rows
from sglang_moss.request.template import Template

from .example import Example

IGNORED = -100  # label of what is not learnt
Layout: TypeAlias = Literal["published", "served"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def prompt_rows(example: Example, tokenizer: Tokenizer, tokens: SpecialTokens, template: Template) -> np.ndarray:
    """Rows before <|audio_start|>, as a request with these words and references has them.

    Returns:
        [P, 1 + n_vq] int32: a text id, then delayed codes.
    Raises:
        BadText: a text without words for far longer than anybody speaks without one.
    """
    references = example.references
    has_reference = None if references is None else [codes is not None for codes in references]
    there = [codes.astype(np.int32) for codes in references or () if codes is not None]
    return user_turn_rows(template.user_turn(example.fields, has_reference), there, tokenizer, tokens)


def target_rows(
    codes: np.ndarray, tokenizer: Tokenizer, tokens: SpecialTokens, layout: Layout = "published"
) -> np.ndarray:
    """Rows from <|audio_start|> on.

    Args:
        codes: [T, n_vq] integers, T at least 1.
        tokenizer: of the checkpoint.
        tokens: of the checkpoint.
        layout: see above.
    Returns:
        [T + n_vq + 3, 1 + n_vq] int32.
    """
    n_frames = len(codes)
    assert n_frames > 0, "a target has a frame"
    assert codes.shape[1:] == (tokens.n_vq,), f"expected [T, {tokens.n_vq}] codes, got {codes.shape}"
    ends = [tokens.audio_end, tokens.im_end, *tokenizer.encode("\n", add_special_tokens=False)]
    n_slots = n_frames + tokens.n_vq - 1
    n_gen = n_frames - (layout == "served")
    rows = np.full((1 + n_slots + len(ends), 1 + tokens.n_vq), tokens.pad_code, np.int32)
    rows[0, 0] = tokens.audio_start
    rows[1 : 1 + n_gen, 0] = tokens.gen_slot
    rows[1 + n_gen : 1 + n_slots, 0] = tokens.delay_slot
    rows[1 : 1 + n_slots, 1:] = apply_delay(codes.astype(np.int32), tokens.pad_code)
    rows[1 + n_slots :, 0] = ends
    return rows


def labels_of(rows: np.ndarray, n_prompt_rows: int, pad_code: int) -> np.ndarray:
    """What each row but the last is asked for.

    Args:
        rows: [S, 1 + n_vq] of a whole example.
        n_prompt_rows: P.
        pad_code: of the checkpoint.
    Returns:
        [S - 1, 1 + n_vq] int32: row s has row s + 1, and `IGNORED` where nothing is learnt.
    """
    labels = rows[1:].copy()
    labels[: n_prompt_rows - 1] = IGNORED
    labels[:, 1:][labels[:, 1:] == pad_code] = IGNORED
    return labels


def hide_codes(target: np.ndarray, pad_code: int, shares: tuple[float, float], rng: np.random.Generator) -> None:
    """Put pad codes over some of a target's codes, in place: the model is asked for them, but does not read them.

    Args:
        target: [S, 1 + n_vq] rows.
        pad_code: of the checkpoint.
        shares: of whole rows, and of single codes in the others.
        rng: draws them.
    """
    of_rows, of_codes = shares
    is_hidden = rng.random((len(target), 1)) < of_rows
    if of_codes:
        is_hidden = is_hidden | (rng.random(target[:, 1:].shape) < of_codes)
    target[:, 1:][np.broadcast_to(is_hidden, target[:, 1:].shape)] = pad_code


def n_input_rows(n_prompt_rows: np.ndarray, n_frames: np.ndarray, n_vq: int) -> np.ndarray:
    """How many rows of examples the model reads: all but the last; integers of any one shape."""
    return n_prompt_rows + n_frames + n_vq + 2


def label_counts(n_frames: int, n_examples: int, n_vq: int) -> np.ndarray:
    """How much is learnt of examples with so many frames together: [1 + n_vq] int64, text first."""
    counts = np.full(1 + n_vq, n_frames, np.int64)
    counts[0] += n_examples * (n_vq + 3)
    return counts
