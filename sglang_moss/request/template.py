"""The user turn's words: a line for each field, the word `None` where a field is absent.

    <user_inst>
    - Reference(s):
    [S1]:
    <|Audio|>              `AUDIO_PLACEHOLDER`, one for each reference that is there
    - Instruction:
    None
    ...
    - Text:
    [S1] ...
    </user_inst>

Two templates differ in a line, and in what they write of a speaker without a reference:

    references           TTSD, as it is served                TTS, the rest of the family
    no such field        [Sk]: None of every tag in the text  None
    [a, null] of two     [S1]: a, [S2]: None                  [S1]: a
    [null, a] of two     [S1]: None, [S2]: a                  [S2]: a
    [null, null]         [S1]: None, [S2]: None               an empty line

A null of TTSD whose tag is not in the text is left out, and so is a speaker beyond the list, as the served path does.

Source: served path of MOSS-TTSD (`/generate`), which never saw a hole; MOSS-TTS processor `build_user_message`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sglang_moss.request.text import AUDIO_PLACEHOLDER, speakers_in

FieldValue: TypeAlias = str | int | None

_LABELS = {
    "instruction": "Instruction",
    "tokens": "Tokens",
    "quality": "Quality",
    "sound_event": "Sound Event",
    "ambient_sound": "Ambient Sound",
    "language": "Language",
}
FIELDS = (*_LABELS, "text")  # what a record may say of a user turn, besides its references


@dataclass(frozen=True)
class Template:
    """How a checkpoint of the family wants its user turn written."""

    name: str
    has_scene: bool  # a line `- Scene:` before the text; nothing fills it
    lists_silent_speakers: bool  # `[Sk]: None` of a speaker in the text who has no reference

    def user_turn(self, fields: Mapping[str, FieldValue], has_reference: Sequence[bool] | None) -> str:
        """The whole turn.

        Args:
            fields: by name, see `FIELDS`; absent or None: the word `None`. An empty string is an empty line.
            has_reference: of each speaker, speaker 1 first; None: the record has no such field.
        Returns:
            Text in which `AUDIO_PLACEHOLDER` stands once for every True, before any word of `fields`.
        """
        assert fields.keys() <= set(FIELDS), f"expected fields of {FIELDS}, got {sorted(fields)}"
        text = fields.get("text")
        reference = self._reference(text, has_reference)
        if has_reference is None and self.lists_silent_speakers and isinstance(text, str):
            text = text.replace("{reference}", reference)  # as the reference implementation fills its template
        lines = [("Reference(s)", reference), *((label, fields.get(name)) for name, label in _LABELS.items())]
        lines += [("Scene", None)] if self.has_scene else []
        lines += [("Text", text)]
        return "<user_inst>\n" + "".join(f"- {label}:\n{value}\n" for label, value in lines) + "</user_inst>"

    def _reference(self, text: FieldValue, has_reference: Sequence[bool] | None) -> str:
        speaking = set(speakers_in(text)) if isinstance(text, str) and self.lists_silent_speakers else set()
        if has_reference is None:
            return "\n".join(f"[S{k}]: None" for k in sorted(speaking)) if self.lists_silent_speakers else "None"
        entries = []
        for k, is_there in enumerate(has_reference, 1):
            if is_there:
                entries.append(f"[S{k}]:\n{AUDIO_PLACEHOLDER}")
            elif k in speaking:
                entries.append(f"[S{k}]: None")
        return "\n".join(entries)


TTSD = Template("ttsd", has_scene=True, lists_silent_speakers=True)
TTS = Template("tts", has_scene=False, lists_silent_speakers=False)
TEMPLATES = {template.name: template for template in (TTSD, TTS)}
