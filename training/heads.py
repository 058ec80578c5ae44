"""The text head and the audio heads, which give the loss and never all logits.

    labelled rows [M, D], in chunks:  logits of a chunk -> losses, gradient of the logits in place
                                      -> gradient of the hidden states, and of the heads

The gradient is made in the forward pass, so that a chunk's logits are gone before the next chunk's come. The audio
heads are one matrix of n_vq x audio_vocab rows, hence one product. Their pad code is left out, as if its logit were
-inf, and has no gradient.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .cross_entropy import cross_entropy_

CHUNK_ROWS = 2048


class Heads(nn.Module):
    """`lm_heads` of a published checkpoint: the text head, then one head a codebook; named by number.

    No `nn.ModuleList`, of which FSDP2 takes none.
    """

    def __init__(self, hidden_size: int, vocab_size: int, n_vq: int, n_codes: int, pad_code: int) -> None:
        """Heads of `n_codes` logits, the last of which is that of `pad_code`."""
        assert pad_code == n_codes - 1, f"expected the pad code last of {n_codes}, got {pad_code}"
        super().__init__()
        for i, n in enumerate((vocab_size, *[n_codes] * n_vq)):
            self.add_module(str(i), nn.Linear(hidden_size, n, bias=False))
        self.n_vq = n_vq
        self.pad_code = pad_code
        self.chunk_rows = CHUNK_ROWS

    def forward(
        self, hidden: Tensor, labels: Tensor | None = None, scales: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of some rows, or without labels their logits.

        Args:
            hidden: [M, D].
            labels: [M, 1 + n_vq] int32.
            scales: [1 + n_vq] float32: what each channel's sum is multiplied by.
        Returns:
            The loss, and [1 + n_vq] float32 sums of cross entropy that are not scaled and have no gradient. Or text
            logits [M, V] and audio logits [M, n_vq, n_codes], float32, -inf for the pad code.
        """
        if labels is None:
            return self._logits(hidden)
        text, *audio = self.parameters()
        stacked = torch.cat([weight[: self.pad_code] for weight in audio])
        learns = torch.is_grad_enabled()
        return _ChunkedLoss.apply(hidden, text, stacked, labels, scales, self.chunk_rows, learns)  # pyright: ignore[reportReturnType]

    def _logits(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        text, *audio = (head(hidden).float() for head in self.children())
        stacked = torch.stack(audio, dim=1)
        stacked[..., self.pad_code] = float("-inf")
        return text, stacked


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        text: Tensor,
        audio: Tensor,
        labels: Tensor,
        scales: Tensor,
        chunk_rows: int,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        wants = [learns and needed for needed in ctx.needs_input_grad[:3]]
        d_hidden = torch.empty_like(hidden) if wants[0] else None
        d_text, d_audio = (
            torch.zeros_like(weight, dtype=torch.float32) if wanted else None
            for weight, wanted in ((text, wants[1]), (audio, wants[2]))
        )
        sums = torch.zeros_like(scales)
        for start in range(0, len(hidden), chunk_rows):
            rows = slice(start, start + chunk_rows)
            chunk = hidden[rows]
            into = None if d_hidden is None else d_hidden[rows]
            sums[:1] += _head(chunk, text, labels[rows, :1], scales[:1], into, d_text, is_first=True)
            sums[1:] += _head(chunk, audio, labels[rows, 1:], scales[1:], into, d_audio, is_first=False)
        ctx.save_for_backward(*(x for x in (d_hidden, d_text, d_audio) if x is not None))
        ctx.wants, ctx.dtypes = wants, (hidden.dtype, text.dtype, audio.dtype)
        ctx.mark_non_differentiable(sums)
        return (sums * scales).sum(), sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        made = iter(ctx.saved_tensors)
        scaled = [
            next(made).mul_(grads[0]).to(dtype) if wanted else None
            for wanted, dtype in zip(ctx.wants, ctx.dtypes, strict=True)
        ]
        return *scaled, None, None, None, None


def _head(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    scales: Tensor,
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
    *,
    is_first: bool,
) -> Tensor:
    """Sums [C] of one chunk [m, D] through a weight [C * V, D]; gradients are added to what is given."""
    n_channels = labels.shape[1]
    logits = hidden @ weight.T
    losses = cross_entropy_(logits.view(len(hidden) * n_channels, -1), labels.reshape(-1), scales)
    if d_hidden is not None:
        if is_first:
            torch.mm(logits, weight, out=d_hidden)
        else:
            d_hidden.addmm_(logits, weight)
    if d_weight is not None:
        _add_product(d_weight, logits.T, hidden)
    return losses.view(-1, n_channels).sum(0)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, in float32."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif a.device.type == "cuda":
        if _adds_to_float32(a.dtype):
            torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
        else:
            total += torch.mm(a, b, out_dtype=torch.float32)
    else:
        total += a @ b


@cache
def _adds_to_float32(dtype: torch.dtype) -> bool:
    """Whether this torch adds a product of 16-bit matrices to a float32 one; some want the sum in 16 bit too."""
    part = torch.zeros(16, 16, dtype=dtype, device="cuda")
    try:
        torch.addmm(part.float(), part, part, out_dtype=torch.float32, out=part.float())
    except (RuntimeError, TypeError):
        return False
    return True
