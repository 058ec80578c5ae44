"""Prompt of one `/generate` request: the rows that the model reads before it speaks.

    <|im_start|>user\\n<user_inst>\\n- Reference(s):\\n[S1]:\\n     text rows: a text id, then n_vq x pad_code
    <|audio_start|> slots <|audio_end|>                         T + n_vq - 1 user slots with the delayed codes
    \\n- Instruction:\\nNone ... - Text:\\n[S1] ...\\n</user_inst>   text rows
    <|im_end|>\\n<|im_start|>assistant\\n
    <|audio_start|> slots                                       continuation only: T gen slots with the first T delayed
                                                                rows; the model itself speaks the rest of them again

The reference implementation fills a template by successive replacement, so that `{reference}` in the text is replaced
too. Without references we do the same, for it only adds words. With references it would open audio slots a second
time, and fail; ours leaves the text alone, like every other `{...}` in it.

Source: served path of MOSS-TTSD, `/generate` (numbering, continuation); MOSS-TTS processor (packing); for the words of
the user turn see `template`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.layout import apply_delay
from sglang_moss.errors import BadReference, BadSetting, BadText, PromptTooLong
from sglang_moss.request.profile import TTSD, Profile
from sglang_moss.request.script import Script
from sglang_moss.request.text import AUDIO_PLACEHOLDER, MAX_SPEAKERS

# A long text is encoded in pieces, so that one beyond the context costs no more than the context, and other threads
# come in between. Between a letter or digit and one of these the tokenizer's own pattern cuts as well. What has no cut
# for so long is no speech.
_PIECE_CHARS = 8000
_MAX_PIECE_CHARS = 32_000
_CUT = re.compile(r"(?<=[^\W_])(?=[ ,.!?，。！？；：、\n])")


@dataclass(frozen=True)
class Mode:
    """How a request uses its references."""

    name: str
    clones: bool  # their codes stand in the user turn, each under its speaker tag
    continues: bool  # their concatenation, the prompt audio, opens the assistant turn


_MODES = {
    mode.name: mode
    for mode in (
        Mode("generation", clones=False, continues=False),
        Mode("continuation", clones=False, continues=True),
        Mode("voice_clone", clones=True, continues=False),
        Mode("voice_clone_and_continuation", clones=True, continues=True),
    )
}
MODES = tuple(_MODES)


class Tokenizer(Protocol):
    """What we use of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class SpeechPrompt:
    """A prompt as the model reads it."""

    rows: np.ndarray  # [S, 1 + n_vq] int32: text id, then delayed codes
    prompt_codes: np.ndarray  # [T, n_vq] int32 codes that open the assistant turn, not delayed; T = 0 without them


def special_strings(tokenizer: Tokenizer) -> frozenset[str]:
    """Strings that must not come from a client: each would become one control token, not words.

    A tokenizer that has the speaker tags as tokens may keep them: they are meant to be written.
    """
    legal_tags = {f"[S{k}]" for k in range(1, MAX_SPEAKERS + 1)}
    return frozenset(tokenizer.get_added_vocab()) - legal_tags | {AUDIO_PLACEHOLDER}


def choose_mode(name: str | None, n_references: int, profile: Profile = TTSD) -> Mode:
    """The mode of a request.

    Args:
        name: what the client asked for (`custom_params.mode`), or None: the profile's with references, `generation`
            without.
        n_references: how many references the request has.
        profile: of the model.
    Raises:
        BadSetting: no such mode, or one that does not fit the number of references.
        BadReference: more references than the model takes.
    """
    if n_references and not profile.max_references:
        raise BadReference(profile.refusal("references", field="audio_data"))
    if n_references > profile.max_references:
        raise BadReference(
            f"expected at most {profile.max_references} references, one for each speaker, got {n_references}"
        )
    if name is None:
        name = profile.mode if n_references else "generation"
    if name not in MODES:
        raise BadSetting(f"mode: expected one of {', '.join(MODES)}")
    mode = _MODES[name]
    uses_references = mode.clones or mode.continues
    if uses_references and not profile.max_references:
        raise BadSetting(f"mode: {profile.model} has generation only, since it takes no references; leave it out")
    if uses_references and not n_references:
        raise BadSetting(f"mode: {name} needs references; send audio_data, or use generation")
    if n_references and not uses_references:
        raise BadSetting(f"mode: {name} takes no references, got {n_references}; leave audio_data out, or voice_clone")
    return mode


def build_prompt(
    script: Script,
    references: Sequence[np.ndarray | None] | None,
    prompt_audio: np.ndarray | None,
    tokenizer: Tokenizer,
    tokens: SpecialTokens,
    mode: Mode,
    max_rows: int | None = None,
    profile: Profile = TTSD,
) -> SpeechPrompt:
    """Rows of a request's prompt.

    Args:
        script: checked text and directives.
        references: [T_i, n_vq] integer codes of each clip, speaker 1 first, T_i may be 0; only where the mode clones.
            None among them: that speaker has none. None: the request has no `audio_data`, so that the speakers of the
            text are listed without a voice. An empty list: it has an empty one, and no speaker is listed.
        prompt_audio: [T, n_vq] integer codes of the concatenated clips, encoded as one; where the mode continues.
        tokenizer: of the checkpoint.
        tokens: of the checkpoint.
        mode: from `choose_mode`.
        max_rows: what the context holds.
        profile: of the model.
    Raises:
        PromptTooLong: there are more than `max_rows`.
        BadText: a text without words for far longer than anybody speaks without one.
    """
    assert bool(references) == mode.clones, (mode, references and len(references))
    assert (prompt_audio is not None) == mode.continues, mode

    there = None if references is None else [codes is not None for codes in references]
    clips = [codes for codes in references or () if codes is not None]
    blocks = [user_turn_rows(prompt_text(script, there, profile), clips, tokenizer, tokens, max_rows)]

    if prompt_audio is None:
        prompt_audio = np.empty((0, tokens.n_vq))
    else:
        opening = apply_delay(prompt_audio, tokens.pad_code)[: len(prompt_audio)]
        blocks += [_rows([tokens.audio_start], tokens), _audio_rows(opening, tokens.gen_slot, tokens)]
    return SpeechPrompt(rows=np.concatenate(blocks), prompt_codes=prompt_audio.astype(np.int32))


def user_turn_rows(
    user_turn: str,
    references: Sequence[np.ndarray],
    tokenizer: Tokenizer,
    tokens: SpecialTokens,
    max_rows: int | None = None,
) -> np.ndarray:
    """Rows of the user's turn and of the words that open the assistant's.

    Args:
        user_turn: from a `Template`, with `AUDIO_PLACEHOLDER` for each reference.
        references: [T_i, n_vq] integer codes of each clip that is there.
        tokenizer: of the checkpoint.
        tokens: of the checkpoint.
        max_rows: what the context holds.
    Returns:
        [P, 1 + n_vq] int32.
    Raises:
        PromptTooLong: there are more than `max_rows`.
        BadText: a text without words for far longer than anybody speaks without one.
    """

    def text_ids(text: str) -> list[int]:
        ids: list[int] = []
        for piece in _pieces(text):
            if len(piece) > _MAX_PIECE_CHARS:
                raise BadText(
                    f"text: expected words with blanks or stops between them, got {len(piece)} characters without; "
                    "send what can be spoken",
                    "unbroken_text",
                )
            ids += _ids(piece, tokenizer)
            if max_rows is not None and len(ids) > max_rows:
                raise PromptTooLong(
                    f"text and references take more than the {max_rows} rows of context; "
                    "send less text or shorter references"
                )
        return ids

    # Audio stands between pieces of text that are encoded one by one. A control token cuts the text in the tokenizer
    # as well, so the ids are those of the whole string, and no client can write a slot that takes a reference's codes.
    head, *tails = user_turn.split(AUDIO_PLACEHOLDER, len(references))
    ids = [tokens.im_start, *text_ids("user\n" + head)]
    slots: list[tuple[int, np.ndarray]] = []  # where they begin, and what they hold
    for codes, tail in zip(references, tails, strict=True):
        delayed = apply_delay(codes, tokens.pad_code)
        slots.append((len(ids) + 1, delayed))
        ids += [tokens.audio_start, *[tokens.user_slot] * len(delayed), tokens.audio_end, *text_ids(tail)]
    ids += [tokens.im_end, *text_ids("\n"), tokens.im_start, *text_ids("assistant\n")]
    rows = _rows(ids, tokens)
    for start, delayed in slots:
        rows[start : start + len(delayed), 1:] = delayed
    return rows


def prompt_text(script: Script, references: int | Sequence[bool] | None, profile: Profile = TTSD) -> str:
    """The user turn's words, with `AUDIO_PLACEHOLDER` for the codes of each reference.

    Placeholders of ours come before any word of the client's.

    Args:
        references: how many there are, or of each speaker whether one is there; None: the request has no such field.
    """
    there = [True] * references if isinstance(references, int) else references
    return profile.template.user_turn(script.fields, there)


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """What `tokenizer.encode` says. Most of its time is not the backend's, so that is asked where nothing is between.

    Nothing is where the backend neither cuts nor pads, and treats control tokens in the text as the tokenizer does.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if (
        backend is None
        or backend.truncation is not None
        or backend.padding is not None
        or backend.encode_special_tokens != getattr(tokenizer, "split_special_tokens", None)
    ):
        return tokenizer.encode(text, add_special_tokens=False)
    return backend.encode_batch_fast([text], add_special_tokens=False)[0].ids  # fast: without offsets


def _pieces(text: str) -> Iterator[str]:
    """The text, cut where it makes no difference to its ids."""
    start = 0
    while len(text) - start > _PIECE_CHARS and (cut := _CUT.search(text, start + _PIECE_CHARS)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def _rows(text_ids: Sequence[int], tokens: SpecialTokens) -> np.ndarray:
    """[S, 1 + n_vq] int32: text ids without codes."""
    rows = np.full((len(text_ids), 1 + tokens.n_vq), tokens.pad_code, np.int32)
    rows[:, 0] = text_ids
    return rows


def _audio_rows(delayed: np.ndarray, slot: int, tokens: SpecialTokens) -> np.ndarray:
    """[S, 1 + n_vq] int32: `slot` in front of every row of [S, n_vq] delayed codes."""
    assert delayed.shape[1:] == (tokens.n_vq,), f"expected [S, {tokens.n_vq}] codes, got {delayed.shape}"
    rows = np.empty((len(delayed), 1 + tokens.n_vq), np.int32)
    rows[:, 0], rows[:, 1:] = slot, delayed
    return rows
