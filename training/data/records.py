"""Records: a line of any form that people have, as one thing.

    form         fields besides those of the user turn               becomes
    v1.0         audio, reference | reference_audio | ref_audio,     as it is
                 and what upstream's preparation writes:
                 audio_codes, reference_audio_codes | ref_audio_codes
    transcript   file_path, full_transcript                          audio, text
    pair         reference_audio, reference_text, audio, text        both clips, one after the other, as the target;
                                                                     reference_text in front of the text
    prompts      base_path, prompt_audio_speaker1, ..., audio, text  reference; prompt_text_speaker1, ... are not used
    shared       base_path, prompt_audio, prompt_text, audio, text   as a pair

`transcript` and `pair` are those of v0.5, `prompts` and `shared` those of inference. A clip that several speakers share
is nobody's reference: v0.5 learnt it as the beginning of what is said, which is how v1.0 learns to continue.

Source: MOSS-TTS fine-tuning `prepare_data.py` (v1.0), MOSS-TTSD `finetune` (v0.5) and `generation_utils` (inference).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglang_moss.request.template import FIELDS
from sglang_moss.request.text import MAX_SPEAKERS, SPEAKER_TAG

from .errors import BadRecord
from .storage import INTEGER_FIELDS

_ID = ("id",)
_TURN = (*_ID, *FIELDS)
_REFERENCES = ("reference", "reference_audio", "ref_audio")
_REFERENCE_CODES = ("reference_audio_codes", "ref_audio_codes")
_BASE = "base_path"
_PROMPT = re.compile(r"prompt_(audio|text)_speaker(\d+)")
_OLD_TAG = re.compile(r"<speaker(\d+)>")
_BARE_TAG = re.compile(rf"\[([1-{MAX_SPEAKERS}])\]")


@dataclass(frozen=True)
class Record:
    """What is to be learnt, before anything is encoded.

    Attributes:
        id: of the line; None: it has none.
        fields: of the user turn.
        targets: clips whose codes are joined; empty where `codes` are given.
        codes: [T, n] integers of the target, as they were given.
        references: of each speaker a clip, its [T, n] codes, or None; None: no such field.
        form: of the line, see above.
    """

    id: str | None
    fields: dict[str, str | int]
    targets: tuple[str, ...]
    codes: np.ndarray | None
    references: tuple["str | np.ndarray | None", ...] | None
    form: str

    @property
    def clips(self) -> list[str]:
        """Paths of its references, each once."""
        return list(dict.fromkeys(one for one in self.references or () if isinstance(one, str)))


def read_record(content: Mapping[str, Any], *, ignore_unknown: bool = False) -> Record:
    """The record of one object.

    Args:
        content: of a line.
        ignore_unknown: pass over fields that no form has.
    Raises:
        BadRecord: a field is unknown, missing, of another type, or does not fit another one.
    """
    given = {name: value for name, value in content.items() if value is not None}
    form, read = _form_of(given)
    return read(given, form, ignore_unknown)


def id_of(content: Mapping[str, Any]) -> str | None:
    """The id of one object; None: it has none.

    Raises:
        BadRecord: it is no string and no number.
    """
    value = content.get("id")
    if isinstance(value, bool) or not (value is None or isinstance(value, str | int)) or value == "":
        raise BadRecord(f"id: expected a string or a number, got {value!r:.40}")
    return None if value is None else str(value)


def _form_of(given: Mapping[str, Any]) -> tuple[str, Callable[[dict[str, Any], str, bool], Record]]:
    if "file_path" in given or "full_transcript" in given:
        return "transcript", _transcript
    if "prompt_audio" in given or "prompt_text" in given:
        return "shared", _shared
    if any(map(_PROMPT.fullmatch, given)) or _BASE in given:
        return "prompts", _prompts
    if "reference_text" in given:
        return "pair", _pair
    return "v1.0", _published


def _published(given: dict[str, Any], form: str, ignore_unknown: bool) -> Record:
    known = (*_TURN, "audio", "audio_codes", *_REFERENCES, *_REFERENCE_CODES)
    _refuse_unknown(given, known, ignore_unknown)
    codes = None if "audio_codes" not in given else _codes(given["audio_codes"], "audio_codes")
    targets = () if codes is not None else (_path(given, "audio"),)
    return Record(id_of(given), _fields(given), targets, codes, _references(given), form)


def _transcript(given: dict[str, Any], form: str, ignore_unknown: bool) -> Record:
    _refuse_unknown(given, (*_ID, "file_path", "full_transcript"), ignore_unknown)
    target, text = _path(given, "file_path"), _string(given, "full_transcript")
    return Record(id_of(given), _fields({"text": text}), (target,), None, None, form)


def _pair(given: dict[str, Any], form: str, ignore_unknown: bool) -> Record:
    _refuse_unknown(given, (*_ID, "reference_audio", "reference_text", "audio", "text"), ignore_unknown)
    targets = _path(given, "reference_audio"), _path(given, "audio")
    text = _string(given, "reference_text") + _string(given, "text")
    return Record(id_of(given), _fields({"text": text}), targets, None, None, form)


def _shared(given: dict[str, Any], form: str, ignore_unknown: bool) -> Record:
    _refuse_unknown(given, (*_TURN, _BASE, "prompt_audio", "prompt_text", "audio"), ignore_unknown)
    targets = _path(given, "prompt_audio", base=_base(given)), _path(given, "audio", base=_base(given))
    text = _string(given, "prompt_text") + _string(given, "text")
    return Record(id_of(given), _fields({**given, "text": text}), targets, None, None, form)


def _prompts(given: dict[str, Any], form: str, ignore_unknown: bool) -> Record:
    prompts = {name: match for name in given if (match := _PROMPT.fullmatch(name))}
    _refuse_unknown(given, (*_TURN, _BASE, "audio", *prompts), ignore_unknown)
    base = _base(given)
    clips = {int(match[2]): _path(given, name, base) for name, match in prompts.items() if match[1] == "audio"}
    if beyond := [k for k in clips if not 1 <= k <= MAX_SPEAKERS]:
        raise BadRecord(f"prompt_audio_speaker{beyond[0]}: speakers go from 1 to {MAX_SPEAKERS}")
    references = tuple(clips.get(k) for k in range(1, max(clips) + 1)) if clips else None
    return Record(id_of(given), _fields(given), (_path(given, "audio", base),), None, references, form)


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], ignore_unknown: bool) -> None:
    unknown = [name for name in given if name not in known]
    if unknown and not ignore_unknown:
        names = "field " + unknown[0] if len(unknown) == 1 else "fields " + ", ".join(unknown)
        raise BadRecord(f"unknown {names}: take out what is not to be learnt, or pass --ignore-unknown")


def _fields(given: Mapping[str, Any]) -> dict[str, str | int]:
    """Fields of the user turn, in the template's order."""
    fields: dict[str, str | int] = {}
    for name in FIELDS:
        if name not in given:
            continue
        value = given[name]
        if name in INTEGER_FIELDS:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
                raise BadRecord(f"{name}: expected a positive integer, got {value!r}")
            fields[name] = value
        else:
            fields[name] = _string(given, name)
    if "text" in fields:
        fields["text"] = _with_new_tags(str(fields["text"]))
    return fields


def _with_new_tags(text: str) -> str:
    """`<speaker1>` as `[S1]`, and `[1]` in a text that begins with such a one and has no other tag."""
    text = _OLD_TAG.sub(r"[S\1]", text)
    if SPEAKER_TAG.search(text) is None and _BARE_TAG.match(text.lstrip()):
        return _BARE_TAG.sub(r"[S\1]", text)
    return text


def _references(given: Mapping[str, Any]) -> tuple["str | np.ndarray | None", ...] | None:
    names = [name for name in _REFERENCES if name in given]
    code_names = [name for name in _REFERENCE_CODES if name in given]
    for several in (names, code_names):
        if len(several) > 1:
            raise BadRecord(f"{' and '.join(several)} say the same: keep one of them")
    clips = _list_of_clips(given[names[0]], names[0]) if names else None
    if not code_names:
        return clips
    [name] = code_names
    value = given[name]
    if not isinstance(value, list) or not value:
        raise BadRecord(f"{name}: expected lists of codes, got {value!r:.40}")
    single = isinstance(value[0], list) and bool(value[0]) and not isinstance(value[0][0], list)
    codes = [None if one is None else _codes(one, name) for one in ([value] if single else value)]
    if clips is not None and [clip is None for clip in clips] != [one is None for one in codes]:
        raise BadRecord(f"{name} and {names[0]} list different speakers: prepare the record again")
    return tuple(codes)


def _list_of_clips(value: Any, name: str) -> tuple[str | None, ...]:
    listed: list[Any] = value if isinstance(value, list) and name != "ref_audio" else [value]
    nulls = name == "reference"
    for one in listed:
        if not (isinstance(one, str) and one.strip()) and not (one is None and nulls):
            allowed = "paths or null" if nulls else "a path" if name == "ref_audio" else "paths"
            raise BadRecord(f"{name}: expected {allowed}, got {one!r:.40}")
    return tuple(listed)


def _codes(value: Any, name: str) -> np.ndarray:
    """[T, n] int64."""
    try:
        codes = np.array(value)
    except (ValueError, OverflowError):
        codes = np.empty(0)
    if codes.ndim != 2 or codes.dtype.kind != "i":
        raise BadRecord(f"{name}: expected a list of frames, each a list of as many integers, and at least one frame")
    return codes


def _path(given: Mapping[str, Any], name: str, base: str = "") -> str:
    value = _string(given, name)
    if not value.strip():
        raise BadRecord(f"{name}: expected the path of a clip, got an empty string")
    return str(Path(base) / value) if base else value


def _string(given: Mapping[str, Any], name: str) -> str:
    if name not in given:
        what = "the clip to learn" if name == "audio" else "a string"
        raise BadRecord(f"{name} is missing, expected {what}")
    if not isinstance(given[name], str):
        raise BadRecord(f"{name}: expected a string, got {type(given[name]).__name__}")
    return given[name]


def _base(given: Mapping[str, Any]) -> str:
    return _string(given, _BASE) if _BASE in given else ""
