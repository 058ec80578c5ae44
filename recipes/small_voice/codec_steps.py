"""One step of codec training: the generator's and, once they take part, the discriminators'."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sglang_moss.codec.codec import Codec

from .codec_data import Clips
from .codec_forward import decode_frames, encode_frames, quantize, restart_dead
from .codec_losses import Discriminators, LettersHead, SpectralLoss, discriminator_loss, generator_losses


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    mel: float = 15.0
    phase: float = 1.0
    wave: float = 0.1
    codebooks: float = 1.0
    letters: float = 1.0
    adversarial: float = 1.0
    features: float = 2.0


class CodecSteps:
    """Modules, optimizers, and what they do with a batch of clips."""

    def __init__(self, codec: Codec, rate: float, weights: Weights, *, compiles: bool) -> None:
        device = codec.device
        self.codec, self.weights, self.rate = codec, weights, rate
        self.spectral = SpectralLoss().to(device)
        self.letters = LettersHead(codec.config.quantizer.rvq_dim).to(device)
        self.judges = Discriminators().to(device)
        self._is_cuda = device.type == "cuda"
        kwargs = {"fused": True} if self._is_cuda else {}
        own = [*codec.parameters(), *self.letters.parameters()]
        self.optimizer = torch.optim.AdamW(own, lr=rate, betas=(0.8, 0.99), weight_decay=0.01, **kwargs)
        self.judging = torch.optim.AdamW(self.judges.parameters(), lr=3e-4, betas=(0.8, 0.99), **kwargs)
        self._own = own
        self.average = [p.detach().clone() for p in codec.parameters()]
        self._encode = lambda x: encode_frames(codec, x)
        self._quantize = lambda x, kept: quantize(codec.quantizer, x, kept)
        self._decode = lambda x: decode_frames(codec, x)
        if compiles:
            self._encode, self._quantize, self._decode = (
                torch.compile(f, dynamic=False) for f in (self._encode, self._quantize, self._decode)
            )
        quantizer = codec.config.quantizer
        self.used = torch.full((quantizer.n_codebooks, quantizer.codebook_size), 1 / quantizer.codebook_size)
        self.used = self.used.to(device)

    def autocast(self) -> torch.autocast:
        """16-bit products on a GPU."""
        return torch.autocast("cuda" if self._is_cuda else "cpu", torch.bfloat16, enabled=self._is_cuda)

    def step(self, clips: Clips, n_kept: Tensor, *, judged: slice | None, restarts: float | None) -> dict[str, Tensor]:
        """Train on some clips.

        Args:
            clips: of whole frames.
            n_kept: [B] codebooks that reach the decoder.
            judged: part of the clips that the discriminators hear; None: they take no part yet.
            restarts: codes used less than this share of an even one begin anew; None: none does.
        Returns:
            Losses, without a gradient and without having waited for them.
        """
        w, real = self.weights, clips.samples
        with self.autocast():
            hidden = self._encode(real)
            quantized = self._quantize(hidden, n_kept)
            made = self._decode(quantized.output)
        made = made.float()
        mel, phase = self.spectral(made, real)
        wave = (made - real).abs().mean() / real.abs().mean().clamp_min(1e-4)
        letters = self._letters_loss(quantized.first, clips)
        loss = w.mel * mel + w.phase * phase + w.wave * wave + w.codebooks * quantized.loss + w.letters * letters
        told = {"mel": mel, "phase": phase, "vq": quantized.loss, "letters": letters}
        if judged is not None:
            with self.autocast():
                told["judge"] = self._judge(real[:, judged], made.detach()[:, judged])
                self.judges.requires_grad_(False)
                with torch.no_grad():
                    of_real = self.judges(real[:, judged])
                adversarial, features = generator_losses(of_real, self.judges(made[:, judged]))
                self.judges.requires_grad_(True)
            loss = loss + w.adversarial * adversarial + w.features * features
            told |= {"adversarial": adversarial, "features": features}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        told["norm"] = torch.nn.utils.clip_grad_norm_(self._own, 1.0)
        self.optimizer.step()
        self._follow(quantized.codes)
        if restarts is not None:
            restart_dead(self.codec.quantizer, quantized.sought, self.used, restarts / self.used.shape[1])
        return {name: value.detach() for name, value in told.items()}

    def set_rate(self, share: float) -> None:
        """Of the highest learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * share
        for group in self.judging.param_groups:
            group["lr"] = 3e-4 * max(share, 0.1)

    @torch.no_grad()
    def average_weights(self, decay: float) -> None:
        """Let the averages follow."""
        torch._foreach_lerp_(self.average, list(self.codec.parameters()), 1 - decay)

    def perplexities(self) -> list[int]:
        """How many codes of each codebook are used, as it were evenly."""
        entropy = -(self.used * self.used.clamp_min(1e-9).log()).sum(1)
        return [round(x) for x in entropy.exp().tolist()]

    def _judge(self, real: Tensor, made: Tensor) -> Tensor:
        loss = discriminator_loss(self.judges(real), self.judges(made))
        self.judging.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.judges.parameters(), 5.0)
        self.judging.step()
        return loss

    def _letters_loss(self, first: Tensor, clips: Clips) -> Tensor:
        """Cross entropy a letter of the clips that hold their text as a whole."""
        with_text = clips.n_letters > 0
        n_letters = int(clips.n_letters.sum())
        if n_letters == 0 or self.weights.letters == 0:
            return first.new_zeros(())
        at = with_text.nonzero()[:, 0].to(first.device, non_blocking=True)
        found = self.letters(first[at])
        lengths = torch.full((len(at),), len(found), dtype=torch.int64)
        loss = functional.ctc_loss(
            found, clips.targets[at], lengths, clips.n_letters[with_text], reduction="sum", zero_infinity=True
        )
        return loss / n_letters

    @torch.no_grad()
    def _follow(self, codes: Tensor) -> None:
        flat = codes.flatten(0, 1).T  # [n_codebooks, B * T]
        counts = torch.zeros_like(self.used).scatter_add_(1, flat, torch.ones_like(flat, dtype=self.used.dtype))
        self.used.lerp_(counts / flat.shape[1], 0.02)
