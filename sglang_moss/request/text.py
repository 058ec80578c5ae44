"""Dialogue text: speaker tags, the normaliser, and what is refused before it costs anything.

A script is `[S1] ... [S2] ...`: a tag says who speaks until the next tag. Text before the first tag has no speaker.

Source: MOSS-TTSD `generation_utils` (normaliser, merging of tags, prefixing of transcripts); its normaliser and the
one of the served path give the same text.
"""

import re
from collections.abc import Iterator, Mapping, Set

from sglang_moss.errors import BadText

MAX_SPEAKERS = 5
SPEAKER_TAG = re.compile(r"\[S(\d+)\]")
AUDIO_PLACEHOLDER = "<|Audio|>"  # where codes go in a written-out prompt

_LEGAL_TAGS = frozenset(f"[S{k}]" for k in range(1, MAX_SPEAKERS + 1))
_TAG_AND_WORDS = re.compile(r"(\[S\d+\])?\s*(.*)", re.DOTALL)
_BARE_TAG = re.compile(r"\[(\d+)\]")

_WITHOUT_BLANKS = "[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]"  # Han, kana and their punctuation
_CHINESE_LAUGHTER = re.compile(r"哈{2,}")
_ENGLISH_LAUGHTER = re.compile(r"\bha(?:\s*ha)+\b", re.IGNORECASE)
_PAUSE = re.compile(r"\.{3}|[⸺―—…]")
_STOP_RUN = re.compile(r"([，。？！,.?!])[，。？！,.?!]+")
_DECORATION = dict.fromkeys(map(ord, '【】《》（）『』「」"-_“”～~‘’'))
_HALF_STOPS = str.maketrans("；;：:、", "，,，,，")
_FINAL_COMMA_TO_STOP = {"，": "。", ",": "."}


def check_text(text: object, special_strings: Set[str], field: str = "text") -> None:
    """Refuse a text that cannot be spoken.

    Args:
        text: what is spoken in the end: directives taken off, normalised if that was asked for, without transcripts.
        special_strings: strings that the tokenizer turns into control tokens, see `prompt.special_strings`.
        field: names the text in the error.
    Raises:
        BadText: not a string, not Unicode, no letter or digit besides tags, a speaker tag other than [S1] .. [S5], or
            a special string.
    """
    check_characters(text, special_strings, field)
    assert isinstance(text, str)
    for tag in SPEAKER_TAG.finditer(text):
        if tag.group() not in _LEGAL_TAGS:
            shown = tag.group() if len(tag.group()) <= 8 else f"one with {len(tag.group(1))} digits"
            raise BadText(
                f"{field}: speaker tags go from [S1] to [S{MAX_SPEAKERS}], got {shown}; renumber the speakers",
                "unknown_speaker",
            )
    if not has_words(text):
        raise BadText(f"{field}: expected words to speak, got no letter and no digit besides speaker tags", "no_words")


def has_words(text: str) -> bool:
    """Whether a letter or a digit of any script is there to be spoken, besides speaker tags."""
    return any(map(str.isalnum, SPEAKER_TAG.sub("", text)))


def check_characters(value: object, special_strings: Set[str], field: str) -> None:
    """Refuse what the tokenizer cannot take, or would take for a control token; `field` names the value in the error.

    Raises:
        BadText: not a string, half of a surrogate pair, or one of `special_strings`.
    """
    if not isinstance(value, str):
        raise BadText(f"{field}: expected a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadText(f"{field}: expected Unicode text, got half of a surrogate pair; send UTF-8") from None
    for special in special_strings:
        if special in value:
            raise BadText(
                f"{field}: {special} is a control token of the model and cannot be spoken; take it out",
                "control_token",
            )


def speakers_in(text: str) -> list[int]:
    """Numbers of the speakers that the tags of `text` name, each once, ascending; [S0] names nobody."""
    return sorted({int(tag.group(1)) for tag in SPEAKER_TAG.finditer(text)} - {0})


def normalize_text(text: str) -> str:
    """Write a script the way the model was trained to read it. Not idempotent; apply it once.

    `[1]` becomes `[S1]`, lines are joined, quotes and decoration go, laughter becomes `[笑]` or `[laugh]`, dashes and
    ellipses become `，`, half stops become commas, runs of stops keep their first, only the last `。` of a turn stays,
    and neighbouring turns of one speaker are glued.

    Source: MOSS-TTSD `generation_utils.normalize_text`.
    """
    text = _BARE_TAG.sub(r"[S\1]", text).replace("\n", " ")
    return _join_turns((tag, _normalize_words(words)) for tag, words in _turns(text))


def merge_speaker_tags(text: str) -> str:
    """Drop a tag that repeats the one before it, and the blanks around every turn.

    Source: MOSS-TTSD `generation_utils`, merging of consecutive speaker tags.
    """
    return _join_turns(_turns(text))


def prefix_prompt_texts(text: str, prompt_texts: Mapping[int, str]) -> str:
    """Put the transcripts of the prompt audio in front of the script, as a continuation needs them.

    Args:
        text: the script.
        prompt_texts: transcript by speaker number, with or without its own tag.
    Returns:
        One script: transcripts in ascending order of speaker, then `text`, tags merged.

    Source: MOSS-TTSD `generation_utils`, text of the continuation modes.
    """
    prefix = ""
    for speaker in sorted(prompt_texts):
        tag, transcript = f"[S{speaker}]", prompt_texts[speaker]
        prefix += transcript if transcript.lstrip().startswith(tag) else tag + transcript
    return merge_speaker_tags(prefix + text)


def join_words(*pieces: str) -> str:
    """Pieces of one speaker's text as one, with a blank where words would run together."""
    joined = ""
    for piece in pieces:
        touch = joined[-1:] + piece[:1]
        joined += (" " if len(touch) == 2 and not re.search(rf"\s|{_WITHOUT_BLANKS}", touch) else "") + piece
    return joined


def _turns(text: str) -> Iterator[tuple[str, str]]:
    """(tag, words) of every turn; the tag is empty only for words before the first tag."""
    for turn in re.split(r"(?=\[S\d+\])", text):
        if stripped := turn.strip():
            match = _TAG_AND_WORDS.fullmatch(stripped)
            assert match is not None, "the pattern takes any text"
            yield match[1] or "", match[2]


def _join_turns(turns: Iterator[tuple[str, str]]) -> str:
    """Glue turns, without a tag where the speaker stays the same."""
    pieces: list[str] = []
    speaking = ""
    for tag, words in turns:
        pieces.append(words if tag == speaking else tag + words)
        speaking = tag
    return "".join(pieces)


def _normalize_words(words: str) -> str:
    """The words of one turn, normalised; each line works on what the lines before it left."""
    words = words.translate(_DECORATION)
    words = _CHINESE_LAUGHTER.sub("[笑]", words)
    words = _ENGLISH_LAUGHTER.sub("[laugh]", words)
    words = _PAUSE.sub("，", words).translate(_HALF_STOPS).strip()
    words = _STOP_RUN.sub(r"\1", words)
    if len(words) < 2:
        return words
    return words[:-1].replace("。", "，") + _FINAL_COMMA_TO_STOP.get(words[-1], words[-1])
