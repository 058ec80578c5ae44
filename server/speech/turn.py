"""What the fields of a request say of the user turn, and which of them the model that is served can use.

    field                          user turn        MOSS-TTSD   MOSS-TTS   MOSS-VoiceGenerator   MOSS-SoundEffect
    input                          text             script      text       text                  the description
    dialogue, split                                 yes         yes        refused               refused
    voice, voices, references      references       5           5          refused               refused
    instructions                   instruction      yes         yes        needed                refused
    ambient_sound                  ambient_sound    yes         yes        refused               as input
    quality, sound_event           the same         refused     yes        refused               refused
    duration_seconds               tokens           refused     yes        refused               yes
    language                       language         passed over yes        refused               refused

Clients of other servers send `language` to whatever they speak with, and MOSS-TTSD hears it from the script.
"""

import math
import re
from typing import Any

from sglang_moss.request.profile import TTSD, Profile
from sglang_moss.request.script import MAX_TOKENS
from sglang_moss.request.template import FieldValue
from sglang_moss.request.text import SPEAKER_TAG

from ..errors import BadField
from .fields import SpeechFields

_MEANT = {  # by their names here
    "instructions": "instruction",
    "instruction": "instruction",
    "ambient_sound": "ambient_sound",
    "quality": "quality",
    "sound_event": "sound_event",
    "duration_seconds": "tokens",
    "language": "language",
    "lang_code": "language",
    "voices": "references",
    "references": "references",
    "ref_audio": "references",
}
_NORMALIZE = "${normalize_text}"
_OF_DIALOGUES = ("dialogue", "split", "split_seconds", "timestamps")
_PASSED_OVER = ("language", "lang_code")
_CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_]\w+)*")


def check_taken(fields: SpeechFields, profile: Profile) -> None:
    """Refuse what the model has no use for.

    Raises:
        BadField: the sentence names the models that take it.
    """
    for field, name in _MEANT.items():
        is_passed_over = profile.is_ttsd and field in _PASSED_OVER
        if _said(getattr(fields, field)) is not None and not profile.takes(name) and not is_passed_over:
            raise BadField(profile.refusal(name, field=field), field, "field_not_taken")
    if profile.max_references:
        return
    for field in _OF_DIALOGUES:
        if getattr(fields, field) not in (None, False):
            raise BadField(
                f"{field}: {profile.model} makes one piece of sound without turns; leave it out, or ask {TTSD.model}",
                field,
                "field_not_taken",
            )
    if fields.input is not None and (tag := SPEAKER_TAG.search(fields.input)):
        raise BadField(
            f"input: {profile.model} has no speakers, got {tag.group()[:8]}; take the tag out, or ask {TTSD.model}, "
            "which speaks dialogues",
            "input",
            "no_speakers",
        )


def is_description(profile: Profile) -> bool:
    """Whether `input` describes what is to be heard, and is not spoken."""
    return "text" not in profile.required


def check_no_voice(voice: str | None, profile: Profile) -> None:
    """Refuse a stored voice where there is only the model's own.

    Args:
        voice: that `voice` means; None: no voice.
    """
    if voice is not None and not profile.max_references:
        raise BadField(
            f"{profile.refusal('references', field='voice')}; `default` is no voice", "voice", "field_not_taken"
        )


def turn_fields(fields: SpeechFields, profile: Profile, frames_per_second: float) -> dict[str, FieldValue]:
    """Fields of the user turn besides its text.

    Args:
        fields: have passed `check_taken`.
        frames_per_second: of the codec.
    Raises:
        BadField: one is missing, is said twice, or is not as it should be.
    """
    instruction = _one_of(fields, "instructions", "instruction")
    describes = is_description(profile)
    ambient_sound = _one_of(fields, "input", "ambient_sound") if describes else _said(fields.ambient_sound)
    turn: dict[str, FieldValue] = {
        "instruction": instruction,
        "ambient_sound": ambient_sound,
        "quality": _said(fields.quality),
        "sound_event": _said(fields.sound_event),
    }
    if not profile.is_ttsd:
        turn["language"] = _language(_one_of(fields, "language", "lang_code"))
        turn["tokens"] = _tokens(fields, frames_per_second)
    called = {"instruction": "instructions", "ambient_sound": "input"}
    for name in profile.required:
        if name != "text" and turn[name] is None:
            raise BadField(profile.missing(name, field=called[name]), called[name], "field_missing")
    return {name: value for name, value in turn.items() if value is not None}


def directives_of(fields: SpeechFields, turn: dict[str, FieldValue], profile: Profile) -> str:
    """What stands in front of the text: for MOSS-TTSD the fields too, as those who speak with its served path write."""
    directives = _NORMALIZE if fields.normalize else ""
    for name, value in turn.items() if profile.is_ttsd else ():
        text = str(value)
        if "}" in text:
            raise BadField(f"{name}: a brace would end it; leave }} out", name, "brace")
        directives += f"${{{name}:{' '.join(text.split())}}}"  # a directive is one line
    return directives


def settings_of(fields: SpeechFields, turn: dict[str, FieldValue], profile: Profile) -> dict[str, Any]:
    """`sampling_params` without length and seed: how it is drawn, and the fields that are not in front of the text."""
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    settings = {name: getattr(fields, name) for name in names if getattr(fields, name) is not None}
    sizes = {"chunk_frames": fields.chunk_frames, "first_frames": fields.first_frames}
    custom = {name: size for name, size in sizes.items() if size is not None}
    return settings | {"custom_params": custom if profile.is_ttsd else custom | turn}


def _one_of(fields: SpeechFields, field: str, other: str) -> Any:
    """What one of two fields says, which mean the same."""
    value, same = getattr(fields, field), getattr(fields, other)
    if value is not None and same is not None:
        raise BadField(f"{other} and {field} mean the same; send one", other)
    return _said(same if value is None else value)


def _said(value: Any) -> Any:
    """A field's value; blank text and empty lists say nothing."""
    return None if value in ({}, []) or (isinstance(value, str) and not value.strip()) else value


def _language(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or _CODE.fullmatch(value.strip()):
        raise BadField(
            "language: its name in English, such as French, and no code; or leave it out", "language", "language_name"
        )
    return value.strip()


def _tokens(fields: SpeechFields, frames_per_second: float) -> int | None:
    """Frames that the answer is wished to have, before it is stretched in time."""
    if fields.duration_seconds is None:
        return None
    seconds = fields.duration_seconds * (fields.speed or 1.0)
    tokens = int(seconds * frames_per_second) if math.isfinite(seconds) else 0
    if seconds <= 0 or tokens > MAX_TOKENS:
        raise BadField(
            f"duration_seconds: a length above 0, and at most {MAX_TOKENS / frames_per_second:g} s", "duration_seconds"
        )
    return max(1, tokens)
