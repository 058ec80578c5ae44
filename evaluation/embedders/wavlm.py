"""WavLM with an x-vector head, by transformers."""

from importlib.metadata import version
from typing import Any

import numpy as np

from ..clips import RATE
from ..errors import CannotJudge

_MODEL = "microsoft/wavlm-base-plus-sv"


class WavLM:
    """The embedder `wavlm`."""

    least_s = 0.6

    def __init__(self, model: str | None, device: str) -> None:
        from transformers import AutoFeatureExtractor, WavLMForXVector

        name = model or _MODEL
        try:
            self._extract: Any = AutoFeatureExtractor.from_pretrained(name)
            network: Any = WavLMForXVector.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise CannotJudge(
                f"the embedder wavlm cannot load {name!r}: {str(error).splitlines()[0]}; "
                "--embedder-model names a folder"
            ) from error
        self._model = network.eval().to(device)
        self._device = device
        self.versions = {"transformers": version("transformers"), "torch": version("torch")}

    def embed(self, samples: np.ndarray) -> np.ndarray:
        import torch

        inputs = self._extract(samples.astype(np.float32), sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            embedding = self._model(**inputs.to(self._device)).embeddings[0].float()
        return torch.nn.functional.normalize(embedding, dim=0).cpu().numpy()
