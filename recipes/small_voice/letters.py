"""Letters: of the first codebook, for the language model's sake, and heard in log-mel spectra, for the words' sake.

Both learn by `ctc.ctc_losses` beside the codec and are thrown away after training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .codec_losses import magnitude, mel_basis, spectrum

ALPHABET = "abcdefghijklmnopqrstuvwxyz '"  # what is told apart, besides the blank (0)
STEPS = 3  # of letters, a frame of the codec
_WINDOW, _HOP, _BANDS = 1024, 320, 80
_FLOOR = 3e-4


def letters_of(text: str) -> list[int]:
    """What is asked for."""
    return [ALPHABET.index(c) + 1 for c in text.lower() if c in ALPHABET]


class LettersHead(nn.Module):
    """Letters from the first codebook's share alone."""

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.inner = nn.Conv1d(width, hidden, 5, padding=2)
        self.outer = nn.Conv1d(hidden, STEPS * (len(ALPHABET) + 1), 3, padding=1)

    def forward(self, first: Tensor) -> Tensor:
        """[B, T, width] -> [STEPS * T, B, 1 + letters] log-probabilities, float32."""
        x = self.outer(functional.gelu(self.inner(first.transpose(1, 2)))).float()
        return x.unflatten(1, (STEPS, -1)).permute(3, 1, 0, 2).flatten(0, 1).log_softmax(-1)


class Recogniser(nn.Module):
    """A small recogniser. It learns from real speech; what is made should sound the same to it.

    Args:
        width: of its layers.
        n_blocks: that see 7 steps each.
    """

    def __init__(self, width: int = 256, n_blocks: int = 4) -> None:
        super().__init__()
        self.register_buffer("basis", mel_basis(_WINDOW, _BANDS))
        self.register_buffer("window", torch.hann_window(_WINDOW))
        self.inner = nn.Conv1d(_BANDS, width, 5, padding=2)
        self.down = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, width), nn.Conv1d(width, width, 7, padding=3), nn.GELU())
            for _ in range(n_blocks)
        )
        self.outer = nn.Conv1d(width, len(ALPHABET) + 1, 1)

    def forward(self, samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """[B, L], L of whole frames -> every layer's output, and [STEPS * T, B, 1 + letters] log-probabilities."""
        with torch.autocast(samples.device.type, enabled=False):
            mel = torch.einsum("mf,bft->bmt", self.basis, magnitude(spectrum(samples.float(), self.window, _HOP)))
            mel = mel[:, :, : samples.shape[1] // _HOP].clamp_min(_FLOOR).log10() + 2
        x = functional.gelu(self.down(functional.gelu(self.inner(mel))))
        found = [x]
        for block in self.blocks:
            x = x + block(x)
            found.append(x)
        return found, self.outer(x).float().permute(2, 0, 1).log_softmax(-1)


def heard_difference(real: tuple[list[Tensor], Tensor], made: tuple[list[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Relative distance of a recogniser's layers, and divergence (nats a step) of the letters that it hears."""
    distances = [
        (a.float() - b.float().detach()).abs().mean() / b.float().detach().abs().mean().clamp_min(1e-4)
        for b, a in zip(real[0], made[0], strict=True)
    ]
    known = real[1].detach()
    divergence = (known.exp() * (known - made[1])).sum(-1).mean()
    return torch.stack(distances).mean(), divergence
