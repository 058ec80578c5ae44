"""Codebooks that follow the mean of what is looked up in them, without an optimizer.

A vector that an optimizer moves is limited to its rate a step and falls behind an encoder whose scale grows; a running
mean does not.
"""

import torch
from torch import Tensor

from sglang_moss.codec.quantizer import Codebook, Quantizer


@torch.no_grad()
def limit_scales(quantizer: Quantizer, most: float = 1000.0) -> None:
    """Shorten the vectors of every codebook whose root mean square is above `most`; what is made stays the same.

    Lookups compare directions, so that training leaves this scale free, and it grows: beyond what 16 bits hold.
    """
    for book in quantizer.quantizers:
        if not isinstance(book, Codebook):
            continue
        scale = (book.codebook.weight.square().mean().sqrt() / most).clamp_min(1.0)
        for tensor in (book.in_proj.weight, book.in_proj.bias, book.codebook.weight):
            tensor.div_(scale)
        book.out_proj.weight.mul_(scale)


class Codebooks:
    """Running sums and counts of the vectors that each code was given.

    Args:
        quantizer: its codebooks' vectors are changed in place.
        decay: of the sums and counts, a step.
    """

    def __init__(self, quantizer: Quantizer, decay: float = 0.99) -> None:
        self.weights = [book.codebook.weight for book in quantizer.quantizers if isinstance(book, Codebook)]
        for weight in self.weights:
            weight.requires_grad_(False)
        self._decay = decay
        self.counts = torch.ones(len(self.weights), len(self.weights[0]), device=self.weights[0].device)
        self.sums = torch.stack([weight.detach() for weight in self.weights])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what `count` fills: [n_codebooks, codebook_size, 1 + codebook_dim]."""
        n, size, dim = self.sums.shape
        return n, size, 1 + dim

    @torch.no_grad()
    def count(self, codes: Tensor, sought: Tensor, into: Tensor) -> None:
        """How often each code was found, and the sum of what was sought.

        Args:
            codes: [B, T, n_codebooks] int64.
            sought: [n_codebooks, B * T, codebook_dim].
            into: [n_codebooks, codebook_size, 1 + codebook_dim], overwritten.
        """
        index = codes.flatten(0, 1).T[:, :, None].expand(-1, -1, into.shape[2])
        into.zero_().scatter_add_(1, index, torch.cat([torch.ones_like(sought[:, :, :1]), sought], 2))

    @torch.no_grad()
    def follow(self, counted: Tensor) -> None:
        """Move the vectors, by what `count` made of a batch (of all processes together)."""
        self.counts.lerp_(counted[:, :, 0], 1 - self._decay)
        self.sums.lerp_(counted[:, :, 1:], 1 - self._decay)
        means = self.sums / self.counts.clamp_min(1e-5)[:, :, None]
        for weight, mean in zip(self.weights, means, strict=True):
            weight.copy_(mean)

    @torch.no_grad()
    def restart_dead(self, sought: Tensor, least: float) -> int:
        """Put codes that are hardly ever used where something was sought; returns how many.

        Args:
            sought: [n_codebooks, M, codebook_dim].
            least: share of an even use below which a code is dead.
        """
        n_restarted = 0
        for k, weight in enumerate(self.weights):
            even = self.counts[k].mean().clamp_min(1e-3)
            dead = (self.counts[k] < least * even).nonzero()[:, 0]
            chosen = torch.randint(sought.shape[1], (len(dead),), device=sought.device)
            weight[dead] = sought[k, chosen]
            self.counts[k, dead] = even
            self.sums[k, dead] = weight[dead] * even
            n_restarted += len(dead)
        return n_restarted

    def perplexities(self) -> list[int]:
        """How many codes of each codebook are used, as it were evenly."""
        share = self.counts / self.counts.sum(1, keepdim=True)
        return [round(x) for x in (-(share * share.clamp_min(1e-9).log()).sum(1)).exp().tolist()]

    def tensors(self) -> list[Tensor]:
        """Everything that processes must have in common."""
        return [self.counts, self.sums, *self.weights]
