"""Speaker embedders by name: a voice as a direction in space; the cosine of two is how alike they are.

| name | weights |
| --- | --- |
| `resemblyzer` | in the wheel of that name, which is read without being imported |
| `wavlm` | a transformers folder or name of a `WavLMForXVector` |
| `wespeaker` | an ONNX file of WeSpeaker's |
"""

from typing import Protocol

import numpy as np

from ..recognisers import load_by_name

_CLASSES = {
    "resemblyzer": ".resemblyzer:Resemblyzer",
    "wavlm": ".wavlm:WavLM",
    "wespeaker": ".wespeaker:WeSpeaker",
}
NAMES = tuple(_CLASSES)


class Embedder(Protocol):
    """One back end, its model loaded."""

    least_s: float  # shorter speech says nothing about its speaker
    versions: dict[str, str]

    def embed(self, samples: np.ndarray) -> np.ndarray:
        """[D] float32 of length 1, of [L] float32 at `clips.RATE`, at least `least_s` of speech."""
        ...


def load_embedder(name: str, model: str | None, device: str) -> Embedder:
    """See `recognisers.load_recogniser`."""
    return load_by_name(_CLASSES, "embedder", name, model, device, __name__)
