"""WeSpeaker's exported networks, by ONNX Runtime: the published evaluation's embeddings are of this family.

    speech -> 80 mel bands (Kaldi's filter bank, Hamming window), each less its mean -> network -> [D], length 1

Source: WeSpeaker's ONNX export, input `feats` [B, T, 80], output `embs` [B, D].
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..clips import RATE
from ..errors import CannotJudge, load

_INSTALL = "pip install onnxruntime"
_N_MELS = 80


class WeSpeaker:
    """The embedder `wespeaker`."""

    least_s = 0.6

    def __init__(self, model: str | None, device: str) -> None:
        if model is None:
            raise CannotJudge(
                "the embedder wespeaker needs --embedder-model FILE.onnx, a network that WeSpeaker exported"
            )
        runtime = load("onnxruntime", "the embedder wespeaker", _INSTALL)
        providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
        try:
            self._session = runtime.InferenceSession(model, providers=[*providers, "CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a tree of its own, below Exception
            raise CannotJudge(f"the embedder wespeaker cannot load {model!r}: {str(error).splitlines()[0]}") from error
        self._input = self._session.get_inputs()[0].name
        self.versions = {"onnxruntime": version("onnxruntime"), "wespeaker": Path(model).name}

    def embed(self, samples: np.ndarray) -> np.ndarray:
        [embedding] = self._session.run(None, {self._input: features(samples)[None]})[0]
        return (embedding / max(float(np.linalg.norm(embedding)), 1e-9)).astype(np.float32)


def features(samples: np.ndarray) -> np.ndarray:
    """[T, 80] float32 of [L] float32 at `RATE`: log mel energies every 10 ms, each band less its mean over time."""
    import torch
    from torchaudio.compliance.kaldi import fbank

    waveform = torch.from_numpy(samples.astype(np.float32))[None] * (1 << 15)
    bands = fbank(
        waveform, num_mel_bins=_N_MELS, frame_length=25, frame_shift=10, sample_frequency=RATE,
        window_type="hamming", dither=0.0,
    )  # fmt: skip
    return (bands - bands.mean(dim=0)).numpy()
