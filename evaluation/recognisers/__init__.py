"""Recognisers by name: what was heard, and when each word.

| name | weights | languages |
| --- | --- | --- |
| `pocketsphinx` | in its wheel | English |
| `faster-whisper` | a CTranslate2 folder, or a name to download | Whisper's |
| `whisper` | a transformers folder, or a name to download | Whisper's |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from ..errors import CannotJudge

_CLASSES = {
    "pocketsphinx": ".pocketsphinx:PocketSphinx",
    "faster-whisper": ".faster_whisper:FasterWhisper",
    "whisper": ".whisper:Whisper",
}
NAMES = tuple(_CLASSES)
LANGUAGES = ("en", "zh")  # that a dataset may have
_PACKAGES = {"pocketsphinx": "pocketsphinx", "faster-whisper": "faster_whisper", "whisper": "transformers"}


@dataclass(frozen=True)
class Word:
    """A word as it was heard, and when."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Heard:
    """What was heard in one clip; a back end without times gives no words."""

    text: str
    words: Sequence[Word] = ()


class Recogniser(Protocol):
    """One back end, its model loaded."""

    languages: frozenset[str] | None  # None: all that a dataset may have
    versions: dict[str, str]  # of what the answer depends on

    def hear(self, samples: np.ndarray, language: str) -> Heard:
        """What is said in [L] float32 at `clips.RATE`; `language` is "en" or "zh"."""
        ...


def load_recogniser(name: str, model: str | None, device: str) -> Recogniser:
    """Args: model: a folder or a name; None: the back end's own. device: "cpu" or "cuda".

    Raises:
        CannotJudge: no such back end, its package is missing, or its model cannot be loaded.
    """
    return load_by_name(_CLASSES, "recogniser", name, model, device, __name__)


def is_installed(name: str) -> bool:
    """Whether the package of a back end is there; its weights may still have to be."""
    return find_spec(_PACKAGES[name]) is not None


def languages_of(name: str) -> frozenset[str]:
    """What a back end hears; its package is not imported."""
    module, _, cls = _CLASSES[name].partition(":")
    return getattr(import_module(module, __name__), cls).languages or frozenset(LANGUAGES)


def load_by_name(classes: dict[str, str], kind: str, name: str, model: str | None, device: str, package: str):
    """Import and make the back end that `classes` has under `name`: "module:Class", taking a model and a device."""
    if name not in classes:
        raise CannotJudge(f"there is no {kind} {name!r}; known are {', '.join(classes)}")
    module, _, cls = classes[name].partition(":")
    return getattr(import_module(module, package), cls)(model, device)
