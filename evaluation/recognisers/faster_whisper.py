"""Whisper by CTranslate2, as faster-whisper runs it: `large-v3` is what the published evaluation used."""

from importlib.metadata import version
from typing import Any

import httpx
import numpy as np

from ..errors import CannotJudge, load
from . import Heard, Word

_MODEL = "large-v3"
_INSTALL = "pip install 'sglang-moss[whisper]'"


class FasterWhisper:
    """The recogniser `faster-whisper`."""

    languages = None

    def __init__(self, model: str | None, device: str) -> None:
        package = load("faster_whisper", "the recogniser faster-whisper", _INSTALL)
        name = model or _MODEL
        kind = "float16" if device.startswith("cuda") else "int8"
        try:
            self._model: Any = package.WhisperModel(name, device=device.partition(":")[0], compute_type=kind)
        except (ValueError, RuntimeError, OSError, httpx.HTTPError) as error:  # the last: while downloading
            raise CannotJudge(
                f"the recogniser faster-whisper cannot load {name!r}: {error}; --recogniser-model names a folder"
            ) from error
        self.versions = {"faster-whisper": version("faster-whisper"), "ctranslate2": version("ctranslate2")}

    def hear(self, samples: np.ndarray, language: str) -> Heard:
        # No draws, for the same answer every time; and not the text before it, or one invention would feed the next.
        segments, _info = self._model.transcribe(
            samples.astype(np.float32), language=language, beam_size=5, temperature=0.0, word_timestamps=True,
            condition_on_previous_text=False,
        )  # fmt: skip
        found = list(segments)
        words = [
            Word(word.word.strip(), float(word.start), float(word.end)) for part in found for word in part.words or ()
        ]
        return Heard(" ".join(part.text.strip() for part in found), words)
