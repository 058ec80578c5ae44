"""Whisper by transformers, for folders and names of that library."""

from importlib.metadata import version
from typing import Any

import numpy as np

from ..clips import RATE
from ..errors import CannotJudge
from . import Heard, Word

_MODEL = "openai/whisper-large-v3"


class Whisper:
    """The recogniser `whisper`."""

    languages = None

    def __init__(self, model: str | None, device: str) -> None:
        import torch
        from transformers import pipeline

        name = model or _MODEL
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        try:
            self._pipeline: Any = pipeline("automatic-speech-recognition", name, device=device, dtype=dtype)
        except (ValueError, OSError) as error:
            raise CannotJudge(
                f"the recogniser whisper cannot load {name!r}: {str(error).splitlines()[0]}; "
                "--recogniser-model names a folder"
            ) from error
        self.versions = {"transformers": version("transformers"), "torch": version("torch")}

    def hear(self, samples: np.ndarray, language: str) -> Heard:
        config = self._pipeline.model.generation_config
        # The languages of a model that knows English only are not to be named.
        asked = {"language": language, "task": "transcribe"} if getattr(config, "is_multilingual", True) else {}
        by_word = getattr(config, "alignment_heads", None) is not None
        answer = self._pipeline(
            {"raw": samples.astype(np.float32), "sampling_rate": RATE},
            return_timestamps="word" if by_word else True,
            generate_kwargs=asked,
        )
        end_s = len(samples) / RATE
        words = [
            Word(chunk["text"].strip(), chunk["timestamp"][0], chunk["timestamp"][1] or end_s)
            for chunk in answer["chunks"]
            if by_word and chunk["timestamp"][0] is not None
        ]
        return Heard(answer["text"].strip(), words)
