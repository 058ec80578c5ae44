"""Attention of packed rows: a row sees itself and the earlier rows of its own segment, and nothing else.

    backend   where                                   how segments are kept apart
    sdpa      anywhere                                a mask of every pair of rows: for short packs and for tests
    varlen    CUDA, 16 bit                            cumulative lengths, `torch.nn.attention.varlen`
    flex      anywhere; compiled on CUDA              a document mask, `torch.nn.attention.flex_attention`
    fa4       CUDA, 16 bit, where flash-attn-4 is     cumulative lengths, `flash_attn.cute`

The backbone of transformers finds `attend` under `INTERFACE`; which backend works comes along with every call.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import TrainingError

INTERFACE = "sglang_moss_packed"
BACKENDS = ("sdpa", "varlen", "flex", "fa4")
_ROUNDED_ROWS = 1024  # the longest segment only sizes the grid of a kernel: few values mean few compilations


@dataclass(frozen=True)
class Segments:
    """Where the segments of a pack lie, as one backend wants to know it."""

    backend: str
    cu_seqlens: Tensor  # [n_segments + 1] int32, from 0 to N; a segment may be empty
    max_rows: int  # at least the longest segment
    mask: Any  # [1, 1, N, N] bool for sdpa, a `BlockMask` for flex, None for the others

    @classmethod
    def of(cls, backend: str, cu_seqlens: Tensor, max_rows: int, n_rows: int) -> "Segments":
        """Segments of `n_rows` rows, for one of `BACKENDS`; computed once a pack, used in every layer."""
        if backend in ("sdpa", "flex"):
            rows = torch.arange(n_rows, device=cu_seqlens.device, dtype=torch.int32)
            ids = torch.searchsorted(cu_seqlens, rows, right=True, out_int32=True)
            mask = _square_mask(ids) if backend == "sdpa" else _block_mask(ids)
            return cls(backend, cu_seqlens, max_rows, mask)
        return cls(backend, cu_seqlens, -(-max_rows // _ROUNDED_ROWS) * _ROUNDED_ROWS, None)

    @classmethod
    def whole(cls, positions: Tensor) -> "Segments":
        """One sequence whose next rows, at [N] `positions`, see every row before them."""
        n_rows = len(positions)
        if n_rows == 1:
            return cls("sdpa", positions, 1, None)
        seen = torch.arange(int(positions[-1]) + 1, device=positions.device)
        return cls("sdpa", positions, n_rows, (seen <= positions[:, None])[None, None])


def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that `name` stands for.

    Args:
        name: one of `BACKENDS`, or `auto`: varlen where it works, else flex on CUDA and sdpa elsewhere.
        device: where the model is.
        dtype: what it computes in.
    Raises:
        TrainingError: no such backend, or it does not work here.
    """
    flash = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if name == "auto":
        return "varlen" if flash else "flex" if device.type == "cuda" else "sdpa"
    if name not in BACKENDS:
        raise TrainingError(f"attention: expected auto or one of {', '.join(BACKENDS)}, got {name!r}")
    if name in ("varlen", "fa4") and not flash:
        raise TrainingError(
            f"attention: {name} computes in 16 bit on a GPU, and this is {dtype} on {device.type}; choose sdpa or flex"
        )
    if name == "fa4" and importlib.util.find_spec("flash_attn.cute") is None:
        raise TrainingError("attention: fa4 needs the package flash-attn-4, which is not installed; choose varlen")
    return name


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: Segments,
    **kwargs: Any,  # noqa: ARG001 (what transformers passes to every backend)
) -> tuple[Tensor, None]:
    """transformers' attention interface over [1, heads, N, head_dim]; returns [1, N, heads, head_dim]."""
    assert attention_mask is None, "segments say what a row sees"
    assert not module.training or getattr(module, "attention_dropout", 0.0) == 0.0, "no backend drops attention"
    return _ATTEND[segments.backend](query, key, value, segments, scaling), None


def _sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=segments.mask, scale=scale, enable_gqa=True
    )
    return out.transpose(1, 2)


def _flex(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    out = _flex_attention(query.device.type)(
        query, key, value, block_mask=segments.mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2)


def _varlen(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, heads, head_dim]
    shared: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}  # torch 2.11 does not know it
    out = varlen_attn(
        q,
        k,
        v,
        segments.cu_seqlens,
        segments.cu_seqlens,
        segments.max_rows,
        segments.max_rows,
        scale=scale,
        window_size=(-1, 0),
        **shared,
    )
    assert isinstance(out, Tensor), "no auxiliary result was asked for"
    return out[None]


def _fa4(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    from flash_attn.cute import flash_attn_varlen_func

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=segments.cu_seqlens,
        cu_seqlens_k=segments.cu_seqlens,
        max_seqlen_q=segments.max_rows,
        max_seqlen_k=segments.max_rows,
        softmax_scale=scale,
        causal=True,
    )
    return (out[0] if isinstance(out, tuple) else out)[None]


_ATTEND: dict[str, Callable[[Tensor, Tensor, Tensor, Segments, float], Tensor]] = {
    "sdpa": _sdpa,
    "varlen": _varlen,
    "flex": _flex,
    "fa4": torch.compiler.disable(_fa4),  # pyright: ignore[reportAssignmentType]
}


def _square_mask(ids: Tensor) -> Tensor:
    n_rows = len(ids)
    causal = torch.ones(n_rows, n_rows, dtype=torch.bool, device=ids.device).tril()
    return (causal & (ids[:, None] == ids[None]))[None, None]


def _block_mask(ids: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def same_segment(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (ids[q] == ids[k])

    n_rows = len(ids)
    return create_block_mask(same_segment, None, None, n_rows, n_rows, device=str(ids.device))


@cache
def _flex_attention(device: str) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if device == "cuda" else flex_attention  # pyright: ignore[reportReturnType]


def attention_ops() -> frozenset[Any]:
    """The operations that a backend may come down to."""
    import torch.nn.attention.varlen

    names = (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
    found = {getattr(torch.ops.aten, name).default for name in names}
    return frozenset(found | {torch.ops.torch_attn._varlen_attn.default, torch.ops.higher_order.flex_attention})


ALL_ATTENTION_FUNCTIONS.register(INTERFACE, attend)
