"""The script of a request: its text, and the directives in front, which say how it is to be spoken.

    ${normalize_text}${instruction:Speak slowly}${ambient_sound:rain on a roof}[S1] Hello.

Each may be left out, but the order is fixed and nothing may stand before or between them, not even a blank: anything
else belongs to the text and is spoken.

Source: served path of MOSS-TTSD, `/generate`.
"""

import re
from collections.abc import Set
from dataclasses import dataclass

from sglang_moss.request.text import check_characters, check_text, normalize_text

_DIRECTIVES = re.compile(
    r"(?P<normalize>\$\{normalize_text\})?"
    r"(?:\$\{instruction:(?P<instruction>.*?)\})?"  # `.`: a newline ends no directive, so there is none
    r"(?:\$\{ambient_sound:(?P<ambient_sound>.*?)\})?"
)


@dataclass(frozen=True)
class Script:
    """What a request says: the text that is spoken, and how."""

    text: str
    instruction: str | None = None  # None and "" differ in the prompt
    ambient_sound: str | None = None


def read_script(request_text: str) -> Script:
    """Split a request's text into directives and the text they stand before, normalised if they ask for it."""
    found = _DIRECTIVES.match(request_text)
    assert found is not None, "every part of the pattern may be absent"
    text = request_text[found.end() :]
    return Script(
        text=normalize_text(text) if found["normalize"] else text,
        instruction=found["instruction"],
        ambient_sound=found["ambient_sound"],
    )


def check_script(script: Script, special_strings: Set[str], field: str = "text") -> None:
    """Refuse a script that cannot be spoken; see `text.check_text`.

    Raises:
        BadText: the sentence names the field.
    """
    check_text(script.text, special_strings, field)
    if script.instruction is not None:
        check_characters(script.instruction, special_strings, "instruction")
    if script.ambient_sound is not None:
        check_characters(script.ambient_sound, special_strings, "ambient_sound")
