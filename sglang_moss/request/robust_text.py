"""The normaliser of the rest of the family: it tidies a text and leaves its words, tags and controls alone.

    written                                     read
    one[pause 3.2s]two   /həloʊ/   nin2 hao3    the same
    app.js.map  a@b.cd  https://x.y/z  #a  @b   the same, and kept apart from Chinese and Japanese words
    # Title   > said   - item   1. item         without the mark; the end of a line is `。`
    [words](https://x.y)                        words https://x.y
    A -> B   A→B                                A，B
    word——word   word -- word   well...         word。word   word。word   well。
    【标题】正文   《标题》——正文                  标题。正文   标题。正文; inside a sentence both stay
    ？？   ?!?!   ！！！                          ？   ？！   ！
    你 好   说 3   用API吧                        你好   说3   用 API 吧

Blanks: one between words, none between Han or kana and what else is written without. Not idempotent in every corner;
apply it once.

Source: MOSS-TTS processor `build_user_message`, its `normalize_tts_text`; rules by its behaviour.
"""

import re
import unicodedata

_WIDE = "[\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff]"  # Han and kana: no blanks between words
# A kept span is one character of a private plane while the rest is rewritten; a text has none of its own by then. What
# stands beside it is beside a word.
_FIRST_STAND_IN, _LAST_STAND_IN = 0xF0000, 0x10FFFD
_STAND_IN = "\U000f0000-\U0010fffd"
_MARKED = r"\-A-Za-z0-9._/+:"  # of names such as foo/bar-baz.py
_NOT_AFTER_A_WORD = f"(?<![A-Za-z0-9_{_STAND_IN}])"
_NOT_BEFORE_A_WORD = f"(?![A-Za-z0-9_{_STAND_IN}])"
# Nobody's names and headings are longer. Without a bound a text of nothing but digits, or of opening brackets, would
# be read to its end from every character.
_NAME, _HEADING_CHARS, _ADDRESS = "{0,255}", "{1,1000}", "{1,2000}"
_LATIN = f"(?=[{_MARKED}{_STAND_IN}]{_NAME}[A-Za-z{_STAND_IN}])[A-Za-z0-9{_STAND_IN}][{_MARKED}{_STAND_IN}]{_NAME}"
_LINK = re.compile(rf"\[([^\[\]]+?)\]\((https?://[^)\s]{_ADDRESS})\)")
_LINE_MARK = (  # at the start of a line, one after the other
    re.compile(r"^#{1,6}\s+"),
    re.compile(r"^>\s+"),
    re.compile(r"^[-*+]\s+"),
    re.compile(r"^\d+[.)]\s+"),
)
# Each is kept as it is, whatever is in it. The first kind that finds a span has it.
_KEPT = (
    re.compile(r"https?://[^\s，。！？；、）】》〉」』]+"),
    re.compile(
        rf"(?<![\w.+{_STAND_IN}-])[A-Za-z0-9._%+-]{{1,255}}@[A-Za-z0-9.-]{{1,255}}\.[A-Za-z]{{2,}}(?![\w.{_STAND_IN}-])"
    ),
    re.compile(rf"{_NOT_AFTER_A_WORD}@\w{{1,32}}", re.ASCII),
    re.compile(rf"{_NOT_AFTER_A_WORD}[ur]/\w+", re.ASCII),
    re.compile(rf"{_NOT_AFTER_A_WORD}#(?!\s)[^\s#]+"),
    re.compile(rf"{_NOT_AFTER_A_WORD}\.(?=[A-Za-z0-9._-]{_NAME}[A-Za-z0-9])[A-Za-z0-9._-]+"),  # .env
    re.compile(  # a name with a letter and a mark in it: v2.3.1
        rf"{_NOT_AFTER_A_WORD}(?=[{_MARKED}]{_NAME}[A-Za-z])(?=[{_MARKED}]{_NAME}[._/+:-])"
        rf"[A-Za-z0-9](?:[{_MARKED}]{_NAME}[A-Za-z0-9])?{_NOT_BEFORE_A_WORD}"
    ),
)

_BLANKS = (
    (re.compile(r"[ \t\r\f\v]+"), " "),
    (re.compile(rf"(?<={_WIDE})\s+(?={_WIDE}|\d)"), ""),
    (re.compile(rf"(?<=\d)\s+(?={_WIDE})"), ""),
    (re.compile(rf"({_WIDE})(?={_LATIN})"), r"\1 "),
    (re.compile(rf"({_LATIN})(?={_WIDE})"), r"\1 "),
    (re.compile(r"(?<!\s)\s+(?=[，。！？；：、”’」』】）》])"), ""),
    (re.compile(r"(?<=[（【「『《“‘])\s+"), ""),
    (re.compile(r"(?<=[，。！？；：、])\s+"), ""),
    (re.compile(r"(?<!\s)\s+(?=[,.;!?])"), ""),
    (re.compile(r" {2,}"), " "),
)
_SENTENCE_STARTS = r"(^|[。！？!?；;]\s*)"
_HEADING = (re.compile(_SENTENCE_STARTS + rf"[【〖『「]([^】〗』」]{_HEADING_CHARS})[】〗』」]\s*"), r"\1\2。")
_STRUCTURE = (
    _HEADING,
    _HEADING,  # again: the stop of one heading is where the next begins
    (
        re.compile(
            _SENTENCE_STARTS + rf"《([^》]{_HEADING_CHARS})》(?=\s*(?:[{_STAND_IN}]|[—–―-]{{2}}|$|[。！？!?；;，,]))"
        ),
        r"\1\2",
    ),
    (re.compile(r"(?<!\s)\s*(?:<[-=]+>|(?<![-=])[-=]+>|<[-=]+|[→←↔⇒⇐⇔⟶⟵⟷⟹⟸⟺↦↤↪↩])\s*"), "，"),
    (re.compile(r"(?<!\s)\s*[—–―-]{2,}\s*"), "。"),
)
_REPEATED = (
    (re.compile(r"\.{3,}|…{2,}"), "。"),
    (re.compile(r"[。．]{2,}"), "。"),
    (re.compile(r"[，,]{2,}"), "，"),
)
_CRIES = re.compile(r"[!?！？]{2,}")


def robust_text(text: str) -> str:
    """A text as the processor of MOSS-TTS, MOSS-VoiceGenerator and MOSS-SoundEffect would pass it on."""
    text = "。".join(_lines(_visible(text)))
    text, kept = _set_aside(text)
    text = _rewritten(text, _BLANKS).strip()
    text = _rewritten(_rewritten(text, _STRUCTURE), _REPEATED)
    text = _CRIES.sub(_one_cry, text)
    text = _rewritten(text, _BLANKS).strip()
    return "".join(kept[ord(c) - _FIRST_STAND_IN] if ord(c) >= _FIRST_STAND_IN else c for c in text).strip()


def _visible(text: str) -> str:
    """Without control and format characters, and those of private planes; an ideographic blank is a blank."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u3000", " ")
    return "".join(c for c in text if c in "\n\t" or not unicodedata.category(c).startswith("C"))


def _lines(text: str) -> list[str]:
    """Lines with words, without what Markdown puts before them."""
    lines = []
    for line in filter(None, map(str.strip, _LINK.sub(r"\1 \2", text).splitlines())):
        for mark in _LINE_MARK:
            line = mark.sub("", line)
        lines.append(line)
    return lines


def _set_aside(text: str) -> tuple[str, list[str]]:
    """The text with a character in the place of each span that is kept, and the spans."""
    kept: list[str] = []

    def stand_in(found: re.Match[str]) -> str:
        if _FIRST_STAND_IN + len(kept) > _LAST_STAND_IN:
            return found.group()
        kept.append("".join(kept[ord(c) - _FIRST_STAND_IN] if ord(c) >= _FIRST_STAND_IN else c for c in found.group()))
        return chr(_FIRST_STAND_IN + len(kept) - 1)

    for kind in _KEPT:
        text = kind.sub(stand_in, text)
    return text, kept


def _rewritten(text: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _one_cry(found: re.Match[str]) -> str:
    """A run of question and exclamation marks as one of each kind that is in it."""
    run = found.group()
    return "？" * any(mark in run for mark in "?？") + "！" * any(mark in run for mark in "!！")
