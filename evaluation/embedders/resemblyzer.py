"""Resemblyzer's voice encoder (GE2E), from the weights in its wheel.

The package itself is not imported: it wants `webrtcvad`, which has no wheels, and `typing`, which every Python has. So

    pip install --no-deps resemblyzer

is all that it takes; network and mel spectrogram are a page of torch. Two things differ on purpose: long silences are
cut out by level, where the package has WebRTC's detector of voices, and loud speech is made as soft as all other,
where the package only raises what is softer: the network hears loudness, and that is no part of a voice.

    speech -> windows of 1.6 s, 0.77 s apart -> mel [160, 40] -> 3 LSTM layers -> [256], their mean, length 1

Source: Resemblyzer 0.1.4, `VoiceEncoder.embed_utterance`.
"""

from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import numpy as np

from ..clips import RATE, silent_frames
from ..errors import CannotJudge, MissingPackage

_INSTALL = "pip install --no-deps resemblyzer"
_WINDOW, _STEP = 160, 77  # mel frames of 10 ms
_HOP, _N_FFT, _N_MELS, _SIZE = 160, 400, 40, 256
_LEAST_COVERED = 0.75  # of the last window
_LEVEL_DBFS = -30.0
_KEPT_PAUSE_FRAMES = 18  # of silence: 6 windows of 30 ms


class Resemblyzer:
    """The embedder `resemblyzer`."""

    least_s = 0.6

    def __init__(self, model: str | None, device: str) -> None:
        import torch
        from torchaudio.functional import melscale_fbanks

        weights = Path(model) if model else _weights_in_wheel()
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
        except (OSError, KeyError, TypeError, RuntimeError) as error:
            raise CannotJudge(f"{weights} holds no weights of Resemblyzer: {error}") from error
        self._lstm = torch.nn.LSTM(_N_MELS, _SIZE, 3, batch_first=True)
        self._linear = torch.nn.Linear(_SIZE, _SIZE)
        self._lstm.load_state_dict(_below("lstm.", state))
        self._linear.load_state_dict(_below("linear.", state))
        self._lstm.to(device).eval().requires_grad_(False)
        self._linear.to(device).eval().requires_grad_(False)
        self._device = device
        self._filters = melscale_fbanks(
            _N_FFT // 2 + 1, 0.0, RATE / 2, _N_MELS, RATE, norm="slaney", mel_scale="slaney"
        )
        self.versions = {"resemblyzer": weights.name if model else version("resemblyzer"), "torch": version("torch")}

    def embed(self, samples: np.ndarray) -> np.ndarray:
        return self.embed_speech(without_long_pauses(at_one_level(samples)))

    def embed_speech(self, samples: np.ndarray) -> np.ndarray:
        """The same of speech that is prepared already: as the package's `embed_utterance`."""
        import torch

        begins = window_begins(len(samples))
        padded = np.pad(samples, (0, max(0, (begins[-1] + _WINDOW) * _HOP - len(samples))))
        mel = self._mel(torch.from_numpy(padded.astype(np.float32)))  # [frames, 40]
        windows = torch.stack([mel[begin : begin + _WINDOW] for begin in begins]).to(self._device)
        _, (hidden, _) = self._lstm(windows)
        partial = torch.nn.functional.normalize(torch.relu(self._linear(hidden[-1])), dim=1)
        return torch.nn.functional.normalize(partial.mean(dim=0), dim=0).cpu().numpy()

    def _mel(self, samples):
        import torch

        spectrum = torch.stft(
            samples, _N_FFT, _HOP, window=torch.hann_window(_N_FFT), pad_mode="constant", return_complex=True
        )
        return spectrum.abs().square().T @ self._filters


def window_begins(n_samples: int) -> list[int]:
    """First mel frame of each window; the last one is left out where too little of it is covered."""
    n_frames = -(-(n_samples + 1) // _HOP)
    begins = list(range(0, max(1, n_frames - _WINDOW + _STEP + 1), _STEP))
    covered = (n_samples - begins[-1] * _HOP) / (_WINDOW * _HOP)
    return begins[:-1] if covered < _LEAST_COVERED and len(begins) > 1 else begins


def without_long_pauses(samples: np.ndarray) -> np.ndarray:
    """[L] float32 to [N]: of each silence what is within 90 ms of speech stays."""
    speech = ~silent_frames(samples)
    near = np.convolve(speech, np.ones(_KEPT_PAUSE_FRAMES + 1), "same") > 0.5
    kept = samples[np.repeat(near, _HOP)[: len(samples)]]
    return kept if len(kept) else samples


def at_one_level(samples: np.ndarray) -> np.ndarray:
    """Bring it to -30 dBFS (rms)."""
    rms_dbfs = 10 * np.log10(max(float(np.mean(samples.astype(np.float64) ** 2)), 1e-12))
    return samples * np.float32(10 ** ((_LEVEL_DBFS - rms_dbfs) / 20))


def _below(prefix: str, state: dict) -> dict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _weights_in_wheel() -> Path:
    try:
        return Path(str(distribution("resemblyzer").locate_file("resemblyzer/pretrained.pt")))
    except PackageNotFoundError:
        raise MissingPackage(f"the embedder resemblyzer reads its weights from that package: {_INSTALL}") from None
