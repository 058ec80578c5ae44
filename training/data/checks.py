"""What makes a record unfit, told before it costs anything, and once its audio is known.

A reject is what would teach the model something wrong: words that cannot be spoken, a voice of a speaker who is silent,
a clip far too short for its text. A warning is what a listener should decide.
"""

from collections.abc import Mapping, Set

from sglang_moss.errors import BadText
from sglang_moss.request.text import MAX_SPEAKERS, check_characters, check_text, speakers_in
from sglang_moss.request.turns import speech_seconds, turns_of

from .errors import BadRecord
from .records import Record

MAX_PACE = 10.0  # times the pace at which people read; the text of another clip
_FAST, _SLOW = 3.0, 0.125  # beyond these a warning
_MAX_CLIPPED = 0.005  # of a clip's samples


def check_record(record: Record, special_strings: Set[str]) -> None:
    """Refuse words that no request could have, and references that do not fit the text.

    Args:
        special_strings: of the tokenizer, see `prompt.special_strings`.
    Raises:
        BadRecord: the sentence names the field.
    """
    try:
        for name, value in record.fields.items():
            if name == "text":
                check_text(value, special_strings)
            elif isinstance(value, str):
                check_characters(value, special_strings, name)
    except BadText as error:
        raise BadRecord(str(error)) from None
    if record.references is not None:
        _check_references(record)


def n_speakers(record: Record) -> int:
    """Who speaks: by the text's tags and the references; one where neither names anybody, none without words."""
    tagged = set(speakers_in(str(record.fields.get("text", ""))))
    voices = {k for k, voice in enumerate(record.references or (), 1) if voice is not None}
    return len(tagged | voices) or int("text" in record.fields)


def check_pace(fields: Mapping[str, str | int], seconds: float, max_pace: float = MAX_PACE) -> str | None:
    """Compare a target with its text, by the rule of thumb for the length of speech.

    Returns:
        A warning, or None.
    Raises:
        BadRecord: the text would have to be read at more than `max_pace` times the usual pace.
    """
    text = fields.get("text")
    if not isinstance(text, str):
        return None
    expected = sum(speech_seconds(turn.words) for turn in turns_of(text))
    said = f"{len(text)} characters in {seconds:.2f} s"
    if expected > max_pace * seconds:
        raise BadRecord(f"{said} is {expected / seconds:.1f} times the pace of speech: the clip is cut, or not its own")
    if expected > _FAST * seconds:
        return f"{said} is {expected / seconds:.1f} times the pace of speech"
    if expected < _SLOW * seconds:
        return f"{said} is {seconds / expected:.1f} times as long as speech takes"
    return None


def clipping_warning(clipped_share: float) -> str | None:
    """A warning about a clip of which so many samples are at full scale."""
    if clipped_share <= _MAX_CLIPPED:
        return None
    return f"{100 * clipped_share:.1f} % of the samples are at full scale: the clip is distorted"


def _check_references(record: Record) -> None:
    references = record.references or ()
    if len(references) > MAX_SPEAKERS:
        raise BadRecord(f"expected at most {MAX_SPEAKERS} references, one for each speaker, got {len(references)}")
    if "text" not in record.fields:
        return
    tagged = speakers_in(str(record.fields["text"])) or [1]
    for k, voice in enumerate(references, 1):
        if voice is not None and k not in tagged:
            raise BadRecord(f"reference {k} is the voice of [S{k}], who does not speak in the text")
    if references and tagged[-1] > len(references):
        raise BadRecord(
            f"the text has [S{tagged[-1]}] and there are {len(references)} references: write null in `reference` for "
            "a speaker without a clip"
        )
