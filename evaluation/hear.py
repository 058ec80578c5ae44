"""A clip on standard input to a draft of what is said in it: `python -m sglang_moss.evaluation.hear pocketsphinx en`.

A program of its own, since a recogniser takes a core and, if it must, all the memory it wants, and may be killed.
"""

import re
import sys

from sglang_moss.audio.loading import ReferenceLimits, load_audio
from sglang_moss.audio.preparation import to_mono
from sglang_moss.errors import BadReference

from .clips import RATE
from .errors import CannotJudge
from .recognisers import load_recogniser

UNUSABLE_CLIP = 2  # exit status

_PRONOUN = re.compile(r"\bi\b")
_ENDS = (".", "?", "!", "。", "？", "！", "…")


def draft(data: bytes, recogniser: str, model: str | None, language: str, device: str = "cpu") -> str:
    """What is said in an audio file, as a sentence to be read through; nothing where nothing was heard.

    Raises:
        BadReference: it is no audio that can be a voice's clip.
        CannotJudge: the recogniser cannot be had, or does not know the language.
    """
    samples, rate = load_audio(data, ReferenceLimits(), 0)
    heard = load_recogniser(recogniser, model, device).hear(to_mono(samples, rate, RATE), language)
    return _sentence(heard.text.strip(), language)


def _sentence(text: str, language: str) -> str:
    """With the marks that recognisers of plain words leave out."""
    if not text or text.endswith(_ENDS):
        return text
    if language != "en":
        return f"{text}。"
    return _PRONOUN.sub("I", text[0].upper() + text[1:]) + "."


def main() -> None:
    recogniser, language, *model = sys.argv[1:]
    try:
        text = draft(sys.stdin.buffer.read(), recogniser, model[0] if model else None, language)
    except BadReference as error:
        sys.stderr.write(f"{error.problem or error}\n")
        raise SystemExit(UNUSABLE_CLIP) from None
    except CannotJudge as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main()
