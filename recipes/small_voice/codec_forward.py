"""The codec's passes with gradients, over the parameters of `sglang_moss.codec`'s own modules.

The served passes run kernels and tables that have no gradient. These compute the same from the same parameters
(the tests hold them to it), in 16-bit products where autocast says so, with a straight-through quantizer.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.quantizer import Codebook, Quantizer
from sglang_moss.codec.rotary import rotation
from sglang_moss.codec.transformer import TransformerLayer, TransformerStage


class Quantized(NamedTuple):
    """What the quantizer made of [B, T] frames."""

    output: Tensor  # [B, T, output_dim]
    first: Tensor  # [B, T, rvq_dim]: the first codebook's share
    codes: Tensor  # [B, T, n_codebooks] int64
    loss: Tensor  # commitment: mean over the codebooks of the squared distance as a share of what was sought
    sought: Tensor  # [n_codebooks, B * T, codebook_dim] what was looked up, without a gradient
    scale: Tensor  # mean square of the log of the root mean squares of the residual and of all that was looked up


def encode_frames(codec: Codec, samples: Tensor) -> Tensor:
    """[B, T * frame_samples] -> [B, T, quantizer input_dim]."""
    return run_stages(codec.encoder, samples[:, :, None])


def decode_frames(codec: Codec, hidden: Tensor) -> Tensor:
    """[B, T, quantizer output_dim] -> [B, T * frame_samples] float32."""
    return run_stages(codec.decoder, hidden).flatten(1)


def run_stages(stages: nn.ModuleList, x: Tensor) -> Tensor:
    """One side of the codec from position 0."""
    for i, stage in enumerate(stages):
        x = run_stage(stage, x, exact=i + 2 >= len(stages)) if isinstance(stage, TransformerStage) else stage(x)
    return x


def run_stage(stage: TransformerStage, x: Tensor, *, exact: bool) -> Tensor:
    """[B, S, input_dim] -> [B, S, output_dim]; `exact`: what it gives is float32, whatever autocast says."""
    x = stage.input_proj(x).float()
    n_rows, shape = x.shape[1], stage.shape
    cos, sin = rotation(torch.arange(n_rows, device=x.device)[None], shape.head_dim, shape.max_period)
    mask = None
    if n_rows > shape.window:
        row = torch.arange(n_rows, device=x.device)
        distance = row[:, None] - row
        mask = (distance >= 0) & (distance < shape.window)
    for layer in stage.transformer_layers:
        x = _run_layer(layer, x, cos, sin, mask)
    if exact:
        with torch.autocast(x.device.type, enabled=False):
            return stage.output_proj(x.float())
    return stage.output_proj(x)


def _run_layer(layer: TransformerLayer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
    qkv = layer.qkv(layer.attention_norm(x)).unflatten(-1, (3, -1, layer.head_dim))
    q, k, v = qkv.unbind(2)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=mask is None
    )
    x = x + _scaled(layer.attention_out(mixed.transpose(1, 2).flatten(-2)), layer.attention_scale)
    update = layer.down(functional.gelu(layer.up(layer.feed_forward_norm(x))))
    return x + _scaled(update, layer.feed_forward_scale)


def _scaled(update: Tensor, scale: Tensor | None) -> Tensor:
    return update if scale is None else scale * update


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def quantize(quantizer: Quantizer, hidden: Tensor, n_kept: Tensor | None = None) -> Quantized:
    """Quantize with straight-through gradients, in float32.

    The codebooks' vectors get no gradient: `codebooks.Codebooks` moves them.

    Args:
        quantizer: its tables are not looked at.
        hidden: [B, T, input_dim].
        n_kept: [B] how many codebooks of each clip reach the decoder; None: all.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        residual = quantizer.input_proj(hidden.float())
        books = [book for book in quantizer.quantizers if isinstance(book, Codebook)]
        total, codes, sought = torch.zeros_like(residual), [], []
        loss = residual.new_zeros(())
        scales = [residual.square().mean().clamp_min(1e-12).log()]
        first = total
        for k, book in enumerate(books):
            kept = 1.0 if n_kept is None else (k < n_kept).float()[:, None, None]
            wanted = book.in_proj(residual)
            code, found = _look_up(book.codebook.weight, wanted)
            apart = (wanted - found).square().mean(-1, keepdim=True)
            # As a share of the mean square: what is sought may be of any length, for it is looked up by direction.
            loss = loss + (apart * kept).mean() / wanted.detach().square().mean().clamp_min(1e-6) / len(books)
            scales.append(wanted.square().mean().clamp_min(1e-12).log())
            share = book.out_proj(wanted + (found - wanted).detach())
            if k == 0:
                first = share
            total = total + share * kept
            residual = residual - share.detach()  # gradients through all the books would multiply
            codes.append(code)
            sought.append(wanted.detach().flatten(0, 1))
        scale = (torch.stack(scales) / 2).square().mean()
        return Quantized(quantizer.output_proj(total), first, torch.stack(codes, -1), loss, torch.stack(sought), scale)


def _look_up(vectors: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        code = (functional.normalize(wanted, dim=-1) @ functional.normalize(vectors, dim=-1).T).argmax(-1)
        return code, functional.embedding(code, vectors)
