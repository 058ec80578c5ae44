"""Made-up requests, and the rows with which a model would speak given frames."""

from typing import Any

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.layout import apply_delay
from sglang_moss.request.prompt import SpeechPrompt
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.speech import SpeechProgress, SpeechRequest

TEXT_VOCAB = 12
_WORD = 9  # a text id that means nothing


def special_tokens_of(n_vq: int, n_codes: int) -> SpecialTokens:
    """Ids out of their usual order, within `TEXT_VOCAB`; codes go from 0 to n_codes - 1."""
    return SpecialTokens(
        im_start=1,
        im_end=8,
        text_pad=0,
        audio_start=6,
        audio_end=2,
        user_slot=4,
        gen_slot=7,
        delay_slot=3,
        pad_code=n_codes,
        n_vq=n_vq,
    )


def random_frames(n_frames: int, tokens: SpecialTokens, seed: int = 0) -> np.ndarray:
    """[n_frames, n_vq] int64 codes."""
    return np.random.default_rng(seed).integers(0, tokens.pad_code, (n_frames, tokens.n_vq))


def text_rows(n_rows: int, tokens: SpecialTokens, text_id: int = _WORD) -> np.ndarray:
    """[n_rows, 1 + n_vq] int64: one text id over and over, no codes."""
    return np.tile(np.array([text_id] + [tokens.pad_code] * tokens.n_vq), (n_rows, 1))


def speech_request(
    tokens: SpecialTokens, prompt_frames: np.ndarray | None = None, n_words: int = 3, **sampling_params: Any
) -> SpeechProgress:
    """A request that has produced nothing yet; its prompt opens the assistant turn if it has prompt frames."""
    parts = [text_rows(n_words, tokens)]
    if prompt_frames is not None:
        opening = apply_delay(prompt_frames, tokens.pad_code)[: len(prompt_frames)]
        slots = np.column_stack([np.full(len(opening), tokens.gen_slot), opening])
        parts += [text_rows(1, tokens, tokens.audio_start), slots]
    codes = np.empty((0, tokens.n_vq)) if prompt_frames is None else prompt_frames
    prompt = SpeechPrompt(np.concatenate(parts).astype(np.int32), codes.astype(np.int32))
    return SpeechProgress(SpeechRequest(prompt, RequestOptions.parse(sampling_params), reference_cached=False))


def spoken_rows(progress: SpeechProgress, frames: np.ndarray, tokens: SpecialTokens) -> list[np.ndarray]:
    """The rows that speak [T, n_vq] frames, T >= 1, after a request's prompt, and the end of the audio."""
    prompt_codes = progress.request.prompt.prompt_codes
    delayed = apply_delay(np.concatenate([prompt_codes, frames]).astype(np.int64), tokens.pad_code)[len(prompt_codes) :]
    text_ids = np.full(len(delayed), tokens.gen_slot)
    text_ids[-tokens.n_vq :] = tokens.delay_slot
    rows = [np.column_stack([text_ids, delayed]), text_rows(1, tokens, tokens.audio_end)]
    opens_audio = progress.request.prompt.rows[-1, 0] in (tokens.audio_start, tokens.gen_slot)
    return [*([] if opens_audio else text_rows(1, tokens, tokens.audio_start)), *np.concatenate(rows)]
