"""What the codec's output is held to: spectra at several resolutions, the wave itself, and discriminators."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .voices import RATE

# Window and mel bands of each resolution; the hop is a quarter.
MELS = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 128))
COMPLEX = (256, 512, 1024)
_WEAK = 1e-5
_FLOOR = 3e-4  # what is weaker is silence: 50 dB below speech, as these spectra are scaled


class SpectralLoss(nn.Module):
    """Log-mel and complex-spectrum distances of [B, L] waves at 24 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self._bases: list[str] = []
        for window, n_mels in MELS:
            self.register_buffer(f"mel_{window}", mel_basis(window, n_mels))
        for window in {w for w, _ in MELS} | set(COMPLEX):
            self.register_buffer(f"window_{window}", torch.hann_window(window))

    def forward(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over resolutions of the log-mel distance, and of the distance of complex spectra."""
        mel, phase = made.new_zeros(()), made.new_zeros(())
        for window, _ in MELS:
            basis = getattr(self, f"mel_{window}")
            a, b = spectrum(made, getattr(self, f"window_{window}")), spectrum(real, getattr(self, f"window_{window}"))
            if window in COMPLEX:
                level = b.abs().mean().clamp_min(_FLOOR)
                phase = phase + (torch.view_as_real(a) - torch.view_as_real(b)).abs().mean() / level
            a, b = (torch.einsum("mf,bft->bmt", basis, magnitude(x)) for x in (a, b))
            mel = mel + (a.clamp_min(_FLOOR).log10() - b.clamp_min(_FLOOR).log10()).abs().mean()
        return mel / len(MELS), phase / len(COMPLEX)


def spectrum(x: Tensor, window: Tensor, hop: int | None = None) -> Tensor:
    """[B, L] -> [B, bins, frames] complex, a quarter of the window apart; a full sine has a magnitude of 0.5."""
    size = len(window)
    found = torch.stft(x, size, hop or size // 4, window=window, center=True, return_complex=True)
    return found * (2 / size)


def magnitude(spectrum: Tensor) -> Tensor:
    """Absolute values whose gradient is finite at 0."""
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def mel_basis(window: int, n_mels: int) -> Tensor:
    """[n_mels, window // 2 + 1] triangles on the mel scale, each with a sum of 1; none is empty."""
    n_bins = window // 2 + 1
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, n_mels + 2) / 2595) - 1)
    at = torch.linspace(0, RATE / 2, n_bins)
    up = (at - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - at) / (edges[2:] - edges[1:-1])[:, None]
    basis = torch.minimum(up, down).clamp_min(0)
    nearest = (edges[1:-1, None] - at).abs().argmin(1)
    basis[torch.arange(n_mels), nearest] += (basis.sum(1) == 0).float()
    return basis / basis.sum(1, keepdim=True)


class Discriminators(nn.Module):
    """Convolutions over complex spectra at several resolutions."""

    def __init__(self, windows: Sequence[int] = (128, 256, 512, 1024, 2048), channels: int = 32) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_Discriminator(window, channels) for window in windows)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """[B, L] -> of each resolution the layers' outputs, the last of which are scores."""
        return [part(x) for part in self.parts]


class _Discriminator(nn.Module):
    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window))
        norm = nn.utils.parametrizations.weight_norm
        shapes = [
            (2, (3, 9), (1, 1), 1),
            *((channels, (3, 9), (1, 2), d) for d in (1, 2, 4)),
            (channels, (3, 3), (1, 1), 1),
        ]
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(n_in, channels, kernel, stride, padding=(d, kernel[1] // 2), dilation=(d, 1)))
            for n_in, kernel, stride, d in shapes
        )
        self.last = norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            found = spectrum(x.float(), self.window)
            # The square root of the magnitude: what is weak, as consonants are, is heard too.
            found = 4 * found / magnitude(found).clamp_min(_WEAK).sqrt()
            y = torch.view_as_real(found).permute(0, 3, 2, 1)  # [B, 2, frames, bins]
        found = []
        for layer in self.layers:
            y = functional.leaky_relu(layer(y), 0.2)
            found.append(y)
        return [*found, self.last(y)]


def discriminator_loss(real: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """Hinge."""
    losses = [
        functional.relu(1 - r[-1].float()).mean() + functional.relu(1 + m[-1].float()).mean()
        for r, m in zip(real, made, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_losses(real: list[list[Tensor]], made: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Hinge, and the relative distance of the layers' outputs."""
    adversarial = torch.stack([-m[-1].float().mean() for m in made]).mean()
    distances = [
        (a.float() - b.float().detach()).abs().mean() / b.float().detach().abs().mean().clamp_min(1e-4)
        for r, m in zip(real, made, strict=True)
        for b, a in zip(r[:-1], m[:-1], strict=True)
    ]
    return adversarial, torch.stack(distances).mean()
