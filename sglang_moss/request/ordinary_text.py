"""Text as people and chat models write it, put right before the model's normaliser takes it.

The normaliser of the reference (`text.normalize_text`) was made for scripts written for it: it takes every [1] for a
speaker and deletes apostrophes, hyphens and tildes, so that words and numbers run together. `/generate` keeps it as it
is. Doors where people write without knowing it (the speech API, the page, `say`, `batch --text-normalize`) put this in
front of it.

Who speaks:

    written                               taken as
    [s1]  [S 1]  ［S1］  【S1】  [Speaker 1]:   [S1]; marks that cannot be seen may stand in it
    [1] Hi. [2] Ho.                       tags, where the script begins with one and all are 1 to 5
    blue [1].  blue[1]                    prose: a citation, left out
    In [2024]  a[0]                       prose: the number
    Speaker 1: ...  Alice: ...            refused, where several turns begin so and there is no tag

What is said:

    written               read as              because the normaliser alone would make of it
    We’re                 We're                Were
    well-known  snake_case   well known        wellknown
    word - word  a--b     word — word          word  word (a dash becomes a pause)
    -5  −5  –5            minus 5              5; 负5, マイナス5, 마이너스 5 or минус 5 in such a script
    2019-2020  3~5        2019–2020, 3–5       20192020; two numbers, the second one larger
    555-1234  2024-05-01  groups, with blanks  5551234
    10:30  10:00  16:9    10 30, 10, 16 9      10,30; 10点30分 in Chinese, likewise in Japanese and Korean
    https://example.com   example.com          https,//example.com

Marks of byte order and others that cannot be seen go, and every kind of line end is one.
"""

import re

from sglang_moss.errors import BadText
from sglang_moss.request.text import MAX_SPEAKERS, SPEAKER_TAG, has_words

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = dict.fromkeys(
    map(ord, "\ufeff\u200b\u2060\u00ad\u200e\u200f\u061c\u180e\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
)
_GAP = r"[\s\u200c\u200d]*"  # joiners have a meaning between letters, so they go only here
_OPEN, _CLOSE = r"[\[［【〔]", r"[\]］】〕]"
_TAG_LIKE = re.compile(
    rf"(?P<stars>\*{{0,3}}){_OPEN}{_GAP}(?:s|ｓ|spk|speaker)[_#-]?{_GAP}(?P<number>\d+){_GAP}{_CLOSE}"
    rf"(?P<end>\*{{0,3}}[ \t]*[:：]?\*{{0,3}})",
    re.IGNORECASE,
)
_BARE_TAG = re.compile(rf"(?P<before>[ \t]*){_OPEN}{_GAP}(?P<number>\d+){_GAP}{_CLOSE}")
_SENTENCE_BEGINS = re.compile(r"(?:^|\n|[.!?…。！？]['\"’”)]*)\s*\Z")
_CITED = re.compile(r"\w*[^\W\d_]\Z|[\d.,;:!?…。，；：！？)\]］】\"'’”»]\Z")
_INDEXED = re.compile(r"(?:(?<![\w'’])[A-Za-z]|\w*_\w*)\Z")
_CITATION_ENDS = re.compile(rf"[ \t]*(?:\Z|\n|[.,;:!?…。，；：！？)]|{_OPEN}{_GAP}\d)")
_CITATION_DIGITS = 3
_MOST_DIGITS = 9
_LOOK_BACK = 64  # characters; a citation is told by the word before it

_NUMBERED_LABEL = re.compile(
    r"(?<![\w\[])(?:[(<{（]\s*)?(?:s|spk|speaker|说话人|說話人|发言人|發言人|話者)\s*[_#-]?\d{1,2}\s*(?:[:：]|[)>}）]\s*[:：]?)",
    re.IGNORECASE,
)
_LABELLED_LINE = re.compile(
    r"^[ \t>*_]*(?P<name>[^\W\d_](?:[\w.'’&-]|[ \t](?![ \t])){0,29}?)[*_]*[ \t]*[:：](?!//)[*_]*[ \t]*(?=\S)"
)
_MAX_NAME_WORDS = 3
_SHOWN = 16  # characters of what was written, in an error

_ALPHABETIC = r"[^\W_\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff]"
_APOSTROPHE = re.compile(rf"(?<={_ALPHABETIC})[’‘ʼ＇´`](?={_ALPHABETIC})")
_HYPHENS = str.maketrans("‐‑－﹣", "----")
_SCHEME = re.compile(r"\b(?:https?|ftp)://", re.IGNORECASE)
_TIME_RANGE = re.compile(r"(?<=\d:\d\d)[ \t]*[-–~～][ \t]*(?=\d{1,2}:\d\d)")
_TIME = re.compile(r"(?<![\d:.])(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?![\d:])")
_COLON = re.compile(r"(?<=\d):(?=\d)")
_SPACED_RANGE = re.compile(r"(?<=\d)[ \t]+[-–][ \t]+(?=\d)")
_SPACED_DASH = re.compile(r"(?<=[^\s-])[ \t]+-{1,3}[ \t]+(?=[^\s-])")
_DOUBLE_DASH = re.compile(r"(?<=[^\s-])-{2,3}(?=[^\s-])")
_TILDE = re.compile(r"(?<=[\d%°])[ \t]*[~～][ \t]*(?=\d)")
_GROUPS = re.compile(r"\d+(?:[.,]\d+)*(?:-\d+(?:[.,]\d+)*)+")
_UNIT_RANGE = re.compile(r"(?<=[%°])-(?=\d)|(?<=\d)-(?=[$€£¥]\d)")
_MINUS = re.compile(rf"(?<!{_ALPHABETIC})(?<![_)%°‘’\u0300-\u036f])[-−–](?=[$€£¥]?\.?\d)")
_HYPHEN = re.compile(r"(?<=[^\s-])-(?=[^\s-])")
# Whatever else the normaliser would delete between two words or numbers.
_GLUE = re.compile(
    r"(?<=[^\W_])(?:[‘’“”\"《》（）「」『』【】]*[-_~～][-_~～‘’“”\"《》（）「」『』【】]*|[‘’]{2,})(?=[^\W_])"
)

_NEAR = 12  # characters to either side, by which a script is known
# By script: its letters, "minus", and what stands behind hours, minutes and seconds.
_SCRIPTS = (
    (re.compile("[\u3040-\u30ff]"), "マイナス", ("時", "分", "秒")),
    (re.compile("[\uac00-\ud7ff]"), "마이너스 ", ("시 ", "분 ", "초")),
    (re.compile("[\u4e00-\u9fff]"), "负", ("点", "分", "秒")),
    (re.compile("[\u0400-\u04ff]"), "минус ", (" ", " ", "")),
)
_OTHERWISE = "minus ", (" ", " ", "")


def plain_lines(text: str) -> str:
    """Text without marks that cannot be seen, and with one kind of line end."""
    return _LINE_END.sub("\n", text.translate(_UNSEEN))


def ordinary_script(text: str, field: str) -> str:
    """A script that the normaliser leaves as it was meant; see the tables above.

    Args:
        field: names the text in errors.
    Raises:
        BadText: a tag of a speaker other than 1 to 5, as it was written; or turns that begin with names, and no tag.
    """
    text = _with_tags(plain_lines(text), field)
    if SPEAKER_TAG.search(text) is None:
        text = _with_bare_tags(text, field)
        if SPEAKER_TAG.search(text) is None:
            _refuse_labels(text, field)
    return ordinary_words(_without_bare_tags(text))


def ordinary_turn(text: str, field: str, *, verbatim: bool = False) -> str:
    """The same of one turn, whose speaker is known: no tag stands in it, and [1] is none.

    Args:
        verbatim: no normaliser will see it: words stay as they are.
    Raises:
        BadText: there is a speaker tag.
    """
    text = plain_lines(text)
    if SPEAKER_TAG.search(text) or _TAG_LIKE.search(text):
        raise BadText(f"{field}: the text of a turn has no speaker tags; make turns of it, or send input")
    return text if verbatim else ordinary_words(_without_bare_tags(text))


def transcript_of(text: str, speaker: int | None, field: str, *, keep_numbers: bool = False) -> str:
    """What is said in one speaker's clip, without that speaker's tag; [1] is no tag in it.

    Args:
        speaker: whose clip it is; None: anybody's, so that the tag of any one speaker is taken.
        field: names the transcript in errors.
        keep_numbers: leave [1] as it is, where no normaliser will see it.
    Raises:
        BadText: a tag of somebody else, or no word at all.
    """
    text = _with_tags(plain_lines(text), field).strip()
    tags = {found.group() for found in SPEAKER_TAG.finditer(text)}
    own = f"[S{speaker}]" if speaker is not None else next(iter(tags), "")
    if tags - {own}:
        foreign = min(tags - {own})
        whose = "one speaker" if speaker is None else own
        raise BadText(
            f"{field}: a transcript holds the words of {whose} only, got {foreign}; take the tag out",
            "transcript_speaker",
        )
    words = " ".join(piece for part in SPEAKER_TAG.sub("\0", text).split("\0") if (piece := part.strip()))
    if not keep_numbers:
        words = _without_bare_tags(words)
    if not has_words(words):
        raise BadText(
            f"{field}: expected what is said in the clip, got no word; leave it out where it is not known",
            "transcript_empty",
        )
    return words


def ordinary_words(text: str) -> str:
    """Words and numbers that the normaliser does not run together."""
    text = _APOSTROPHE.sub("'", text.translate(_HYPHENS))
    text = _SCHEME.sub("", text)
    text = _TIME.sub(_time, _TIME_RANGE.sub(" – ", text))
    text = _COLON.sub(" ", text)
    text = _SPACED_DASH.sub(" — ", _SPACED_RANGE.sub(" – ", text))
    text = _DOUBLE_DASH.sub("—", text)
    text = _UNIT_RANGE.sub("–", _GROUPS.sub(_groups, _TILDE.sub("–", text)))
    text = _MINUS.sub(_minus, text)
    return _HYPHEN.sub(" ", _GLUE.sub(" ", text))


def _with_tags(text: str, field: str) -> str:
    """Tags that people write, as the model knows them."""

    def tag(found: re.Match[str]) -> str:
        written = found.group().strip("* \t:：")
        number = found["number"]
        speaker = int(number) if len(number) <= _MOST_DIGITS else 0
        if not 1 <= speaker <= MAX_SPEAKERS:
            raise _no_speaker(written, number, field)
        kept = "" if "*" in found["end"] else found["stars"]
        return f"{kept}[S{speaker}]" + (" " if found["end"] else "")

    return _TAG_LIKE.sub(tag, text)


def _with_bare_tags(text: str, field: str) -> str:
    """[1] as [S1], in a script that is written so."""
    found = list(_BARE_TAG.finditer(text))
    if not found or text[: found[0].start()].strip() or not _is_speaker(found[0]["number"]):
        return text
    for other in found:
        if not _is_speaker(other["number"]):
            begins_turn = _SENTENCE_BEGINS.search(text[max(0, other.start() - _LOOK_BACK) : other.start()])
            if begins_turn and len(other["number"]) <= _CITATION_DIGITS:
                raise _no_speaker(other.group().strip(), other["number"], field)
            return text
    return _BARE_TAG.sub(lambda tag: f"{tag['before']}[S{int(tag['number'])}]", text)


def _is_speaker(number: str) -> bool:
    return len(number) <= _MOST_DIGITS and 1 <= int(number) <= MAX_SPEAKERS


def _no_speaker(written: str, number: str, field: str) -> BadText:
    shown = written if len(written) <= _SHOWN else f"one with {len(number)} digits"
    return BadText(
        f"{field}: speaker tags go from [S1] to [S{MAX_SPEAKERS}], got {shown}; renumber the speakers",
        "unknown_speaker",
    )


def _without_bare_tags(text: str) -> str:
    """[1] in prose: a citation goes, any other number stays without its brackets."""

    def number(found: re.Match[str]) -> str:
        start, end = found.start(), found.end()
        before = text[max(0, start - _LOOK_BACK) : start]
        value = found["number"]
        is_attached = not found["before"]
        is_index = is_attached and _INDEXED.search(before)
        may_cite = len(value) <= _CITATION_DIGITS and int(value) > 0 and not is_index
        if may_cite and _CITED.search(before) and (is_attached or _CITATION_ENDS.match(text, end)):
            return ""
        gap = " " if is_attached and before[-1:].isalnum() else ""
        return f"{found['before']}{gap}{value}" + (" " if text[end : end + 1].isalnum() else "")

    return _BARE_TAG.sub(number, text)


def _refuse_labels(text: str, field: str) -> None:
    """Turns that begin with a name would be read aloud, names and all, in one voice."""
    labels = [found.group().strip() for found in _NUMBERED_LABEL.finditer(text)]
    if len(set(labels)) < 2:
        lines = [line for line in text.split("\n") if line.strip()]
        found = [line for line in map(_LABELLED_LINE.match, lines) if line is not None and _is_name(line["name"])]
        names = [line["name"].strip() for line in found]
        if len(names) < 2 or (len(names) < len(lines) and len(set(names)) == len(names)):
            return
        labels = [f"{name}:" for name in names]
    shown = " and ".join(f"{label[:_SHOWN]!r}" for label in list(dict.fromkeys(labels))[:2])
    raise BadText(
        f"{field}: turns begin with {shown}, which one voice would read aloud; write [S1], [S2] in place of the names, "
        "or one [S1] in front of everything to have it read as it is",
        "names_as_tags",
    )


def _is_name(label: str) -> bool:
    words = label.split()
    return 1 <= len(words) <= _MAX_NAME_WORDS and not words[0][0].islower()


def _time(found: re.Match[str]) -> str:
    _minus_word, (hours, minutes, seconds) = _script_near(found)
    hour, minute, second = found.groups()
    if second is not None:
        return f"{hour}{hours}{minute}{minutes}{second}{seconds}"
    return f"{hour}{hours}".rstrip() if int(minute) == 0 else f"{hour}{hours}{minute}{minutes}".rstrip()


def _minus(found: re.Match[str]) -> str:
    return _script_near(found)[0]


def _groups(found: re.Match[str]) -> str:
    """Numbers with hyphens between them: a range of two, or groups of digits such as a telephone number's."""
    numbers = found.group().split("-")
    return "–".join(numbers) if len(numbers) == 2 and _is_range(*numbers) else " ".join(numbers)


def _is_range(low: str, high: str) -> bool:
    if not (low.isdecimal() and high.isdecimal()):
        return "," not in low + high and low.count(".") <= 1 >= high.count(".") and float(low) < float(high)
    looks_like_a_phone = len(low) == 3 and len(high) == 4
    is_padded = low[0] == "0" != low or high[0] == "0"
    return max(len(low), len(high)) <= 4 and int(low) < int(high) and not looks_like_a_phone and not is_padded


def _script_near(found: re.Match[str]) -> tuple[str, tuple[str, str, str]]:
    text = found.string
    near = text[max(0, found.start() - _NEAR) : found.start()] + text[found.end() : found.end() + _NEAR]
    for letters, minus, units in _SCRIPTS:
        if letters.search(near):
            return minus, units
    return _OTHERWISE
