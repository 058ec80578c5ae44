"""The script of a request: its text, and the directives in front, which say how it is to be spoken.

    ${normalize_text}${instruction:Speak slowly}${ambient_sound:rain on a roof}[S1] Hello.        MOSS-TTSD
    ${normalize_text}${token:125}${instruction:calm}${ambient_sound:rain}${language:French}...    the rest of the family

Each may be left out, but the order is fixed and nothing may stand before or between them, not even a blank: anything
else belongs to the text and is spoken.

Source: served path of MOSS-TTSD and that of MOSS-TTS, `/generate`. The latter has no `${language:...}`, no
`${normalize_text}` since it always normalises (in a way of its own), and an empty line where there is no text; here it
is the word `None` then, as MOSS-TTS's processor has it.
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import cache

from sglang_moss.errors import BadSetting, BadText
from sglang_moss.request.profile import TTSD, Profile
from sglang_moss.request.template import FieldValue
from sglang_moss.request.text import SPEAKER_TAG, check_characters, check_text

_PATTERNS = {  # by field; a newline ends no directive, so that there is none
    "tokens": r"(?:\$\{token:(?P<tokens>[0-9]+)\})?",
    "instruction": r"(?:\$\{instruction:(?P<instruction>.*?)\})?",
    "ambient_sound": r"(?:\$\{ambient_sound:(?P<ambient_sound>.*?)\})?",
    "language": r"(?:\$\{language:(?P<language>.*?)\})?",
}
_NORMALIZE = r"(?P<normalize>\$\{normalize_text\})?"
MAX_TOKENS = 100_000  # frames that a request may wish for; an hour has 45,000


@dataclass(frozen=True)
class Script:
    """What a request says: the text that is spoken, and the other fields of the user turn. None and "" differ there."""

    text: str | None  # None: absent, where the profile needs none
    instruction: str | None = None
    ambient_sound: str | None = None
    tokens: int | None = None  # frames that the answer is wished to have
    quality: str | None = None
    sound_event: str | None = None
    language: str | None = None

    @property
    def fields(self) -> dict[str, FieldValue]:
        """As `Template.user_turn` takes them."""
        return dict(vars(self))


def read_script(request_text: str, profile: Profile = TTSD, fields: Mapping[str, FieldValue] | None = None) -> Script:
    """Split a request's text into directives and the text they stand before, normalised if they ask for it.

    Args:
        request_text: of `/generate`.
        profile: of the model.
        fields: of the user turn that the request gives apart from its text.
    Raises:
        BadSetting: a field is given twice.
    """
    found = _directives(profile.directives).match(request_text)
    assert found is not None, "every part of the pattern may be absent"
    given: dict[str, FieldValue] = {name: found[name] for name in profile.directives}
    text: str | None = request_text[found.end() :]
    if "text" not in profile.required and not text.strip():
        text = None
    if isinstance(digits := given.get("tokens"), str):
        given["tokens"] = int(digits) if len(digits) < len(str(MAX_TOKENS)) + 4 else MAX_TOKENS + 1
    for name, value in (fields or {}).items():
        if given.get(name) is not None:
            raise BadSetting(f"{name} stands in a directive and in custom_params; keep one")
        given[name] = value
    script = Script(text=text, **given)  # pyright: ignore[reportArgumentType] (types are checked with the fields)
    return _normalized(script, profile) if found["normalize"] else script


def check_script(script: Script, special_strings: Set[str], field: str = "text", profile: Profile = TTSD) -> None:
    """Refuse a script that cannot be spoken; see `text.check_text`.

    Raises:
        BadText: the sentence names the field.
        BadSetting: the profile does not know a field, or needs one that is not there.
    """
    profile.check_fields({name: value for name, value in script.fields.items() if name != "text"})
    if script.text is not None:
        check_text(script.text, special_strings, field)
    for name, value in script.fields.items():
        if isinstance(value, str) and name != "text":
            check_characters(value, special_strings, name)
            if name in profile.required and not value.strip():
                raise BadSetting(profile.missing(name), "field_missing")
    if not profile.max_references:
        for name, value in script.fields.items():
            if isinstance(value, str) and (tag := SPEAKER_TAG.search(value)):
                where = field if name == "text" else name
                raise BadText(
                    f"{where}: {profile.model} has no speakers, got {tag.group()[:8]}; take the tag out, or ask "
                    f"{TTSD.model}, which speaks dialogues",
                    "no_speakers",
                )
    if script.tokens is not None and not 1 <= script.tokens <= MAX_TOKENS:
        raise BadSetting(f"tokens: from 1 to {MAX_TOKENS} frames of 80 ms, or leave it out")


def _normalized(script: Script, profile: Profile) -> Script:
    values = {name: value for name in profile.normalized if isinstance(value := getattr(script, name), str)}
    return replace(script, **{name: profile.normalize(value) for name, value in values.items()})


@cache
def _directives(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(_NORMALIZE + "".join(_PATTERNS[name] for name in names))
