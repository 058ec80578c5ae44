"""Attention of decoding steps on a GPU: first whether the kernel does what plain torch does, then how long it takes.

    python -m sglang_moss.benchmarks.attention --out attention.jsonl

Beside it FlashAttention 3 as SGLang calls it, where its kernels are installed. Times are of one step: the attention of
36 layers in one captured graph, each over a cache of its own, as in a server; the median of many replays. Requests have
800 to 1,099 rows, those of a dialogue of some seconds. `gb_per_s` is over the cached rows, which have to be read.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglang_moss.attention import decode
from sglang_moss.attention.kernels.decode import attend

from .kernels import graph_seconds
from .runs.record import record

_DEVICE = torch.device("cuda")
_N_LAYERS, _N_HEADS, _N_KV_HEADS, _HEAD_DIM = 36, 32, 8, 128  # of the 8 B model
_ROWS = range(800, 1100)
_TABLE_ROWS = 40_960  # of SGLang's page table: the context of the model
_CHECKED = 4  # requests that are held to plain torch
_SCALE = _HEAD_DIM**-0.5
Attention = Callable[[Tensor, int], Tensor]  # of queries [B, HQ, D] in the layer with a number


@dataclass(frozen=True)
class Cached:
    """What a step finds: pages of one row, as SGLang's default is, one request's after the other's."""

    keys: list[Tensor]  # a layer each, [rows, 1, HK, D]
    values: list[Tensor]
    page_table: Tensor  # [B, W] int32
    lengths: Tensor  # [B] int32

    @property
    def n_bytes(self) -> int:
        row = 2 * _N_KV_HEADS * _HEAD_DIM * self.keys[0].element_size()
        return int(self.lengths.sum()) * row * _N_LAYERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[8, 16, 32, 48, 64, 128, 256])
    parser.add_argument("--cache-dtypes", nargs="*", default=["bfloat16", "float8_e4m3fn"])
    parser.add_argument("--out", type=Path, default=Path("attention.jsonl"))
    args = parser.parse_args()
    record(args.out, measure([getattr(torch, name) for name in args.cache_dtypes], args.requests))


@torch.no_grad()
def measure(cache_dtypes: list[torch.dtype], n_requests: list[int]) -> Iterator[dict[str, Any]]:
    for dtype in cache_dtypes:
        for n in n_requests:
            cached = random_cache(n, dtype)
            q = torch.randn(n, _N_HEADS, _HEAD_DIM, dtype=torch.bfloat16, device=_DEVICE)
            case = {"cache_dtype": str(dtype).removeprefix("torch."), "requests": n}
            yield {**case, "check": "attention", "largest_difference": _difference(q, cached)}
            for method, layer in (("ours", _ours(cached)), ("fa3", _fa3(cached))):
                if layer is not None:
                    seconds = _N_LAYERS * graph_seconds(partial(layer, q), _N_LAYERS)
                    yield {**case, "time": method, "us": 1e6 * seconds, "gb_per_s": cached.n_bytes / seconds / 1e9}


def random_cache(n_requests: int, dtype: torch.dtype) -> Cached:
    generator = torch.Generator().manual_seed(n_requests)
    lengths = torch.randint(_ROWS.start, _ROWS.stop, (n_requests,), generator=generator)
    table = torch.zeros(n_requests, _TABLE_ROWS, dtype=torch.int32)
    starts = (lengths.cumsum(0) - lengths).tolist()
    for row, start, length in zip(table, starts, lengths.tolist(), strict=True):
        row[:length] = torch.arange(start, start + length)
    shape = int(lengths.sum()), 1, _N_KV_HEADS, _HEAD_DIM
    # Noise is drawn for two and copied to the others: what matters is that no layer finds its rows in the L2 cache.
    noise = [torch.randn(shape, dtype=torch.bfloat16, device=_DEVICE).to(dtype) for _ in range(2)]
    keys, values = ([noise[(i + j) % 2].clone() for i in range(_N_LAYERS)] for j in range(2))
    return Cached(keys, values, table.to(_DEVICE), lengths.to(_DEVICE, torch.int32))


def _difference(q: Tensor, cached: Cached) -> float:
    n = _CHECKED
    operands = cached.keys[0], cached.values[0]
    found = attend(q, *operands, cached.page_table, cached.lengths, _SCALE)[:n]
    expected = decode.attend(q[:n], *operands, cached.page_table[:n], cached.lengths[:n], _SCALE)
    return (found.float() - expected.float()).abs().max().item()


def attention_over(cached: Cached, ours: bool) -> Attention:
    """By our kernel or by FlashAttention 3.

    Raises:
        RuntimeError: SGLang's kernels are not installed.
    """
    found = _ours(cached) if ours else _fa3(cached)
    if found is None:
        raise RuntimeError("FlashAttention 3 comes with SGLang's kernels, which are not installed")
    return found


def _ours(cached: Cached) -> Attention:
    return lambda q, i: attend(q, cached.keys[i], cached.values[i], cached.page_table, cached.lengths, _SCALE)


def _fa3(cached: Cached) -> Attention | None:
    """As SGLang calls it, with what it computes once a step; None: not installed."""
    try:
        from sgl_kernel.flash_attn import flash_attn_with_kvcache, get_scheduler_metadata
    except ImportError:
        return None
    n, dtype = len(cached.lengths), cached.keys[0].dtype
    starts = torch.arange(n + 1, dtype=torch.int32, device=_DEVICE)
    same = {"cache_seqlens": cached.lengths, "cu_seqlens_q": starts, "max_seqlen_q": 1, "causal": True, "num_splits": 0}
    plan = get_scheduler_metadata(
        batch_size=n,
        max_seqlen_k=_TABLE_ROWS,
        num_heads=_N_HEADS,
        num_heads_k=_N_KV_HEADS,
        headdim=_HEAD_DIM,
        qkv_dtype=dtype,
        page_size=1,
        has_softcap=False,
        **same,
    )

    def layer(q: Tensor, i: int) -> Any:
        return flash_attn_with_kvcache(
            q=q.to(dtype),
            k_cache=cached.keys[i],
            v_cache=cached.values[i],
            page_table=cached.page_table,
            softmax_scale=_SCALE,
            ver=3,
            scheduler_metadata=plan,
            **same,
        )

    return layer


if __name__ == "__main__":
    main()
