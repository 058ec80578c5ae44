"""Text as it is scored: what a script and a recogniser's answer are both turned into before they are held together.

English goes through Whisper's normaliser for English (case, punctuation, numbers, abbreviations, spelling, and whatever
stands in brackets), Chinese through the one that Whisper uses for all other languages. A token is a word, or one
Chinese character: what the published evaluation calls the word error rate of Chinese counts characters. Traditional
and simplified characters are not the same, and numbers in Chinese are compared as they are written.
"""

import re
from functools import cache
from typing import Any

from .errors import load

INSTALL = "pip install 'sglang-moss[eval]'"
_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(f"[{_HAN}]|[^\\s{_HAN}]+")
_IS_HAN = re.compile(f"[{_HAN}]")
_LETTER = re.compile(r"[^\W\d_]")
_EVENT = re.compile(r"\[[^\[\]]*\]")


def language_of(text: str) -> str:
    """ "zh" if at least half of the letters are Chinese characters, else "en"."""
    n_letters = len(_LETTER.findall(text))
    return "zh" if n_letters and 2 * len(_IS_HAN.findall(text)) >= n_letters else "en"


def tokens_of(text: str, language: str) -> list[str]:
    """The words, or characters, that are counted; none for a text that is only punctuation."""
    found = _TOKEN.findall(_normaliser(language)(_EVENT.sub(" ", text)))
    return [token for token in found if any(map(str.isalnum, token))]  # the normaliser leaves dots of "..."


def characters_of(tokens: list[str]) -> str:
    """What the character error rate is about: the tokens without blanks between them."""
    return "".join(tokens)


@cache
def _normaliser(language: str) -> Any:
    if language == "zh":
        return load("whisper_normalizer.basic", "the judge", INSTALL).BasicTextNormalizer()
    return load("whisper_normalizer.english", "the judge", INSTALL).EnglishTextNormalizer()
