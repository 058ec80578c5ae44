"""Whether the kernel does on this GPU what plain torch does: asked once, before a server takes it.

It has run on two kinds of GPU, and other releases of Triton compile it otherwise; a wrong row would be heard as noise,
and nothing else would tell.
"""

import torch

from sglang_moss.attention import decode
from sglang_moss.attention.kernels.decode import FEW_PROGRAMS, attend

_TOLERANCE = 2e-2  # of means of values around 1: their rounding to bfloat16, and that of the weights
_FEW = 3  # requests
_LONGEST = 300  # rows of a request, which are several tiles


def prove(
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    page_size: int,
    dtype: torch.dtype,
    cache_dtype: torch.dtype,
    device: str | torch.device,
) -> None:
    """Hold the kernel to plain torch on random rows.

    Args:
        n_heads: of queries, on this rank.
        dtype: of queries.
    Raises:
        RuntimeError: it differs by more than rounding explains.
    """
    generator = torch.Generator().manual_seed(0)
    n_pages = -(-_LONGEST // page_size)
    caches = [
        torch.randn(n_pages, page_size, n_kv_heads, head_dim, generator=generator).to(device, cache_dtype)
        for _ in range(2)
    ]
    for n in (_FEW, FEW_PROGRAMS // n_kv_heads + 1):  # both ways in which the kernel cuts its work
        lengths = torch.linspace(1, _LONGEST, n).to(device, torch.int32)
        pages = [torch.randperm(n_pages, generator=generator) for _ in range(n)]
        table = torch.stack(pages).to(device, torch.int32)
        q = torch.randn(n, n_heads, head_dim, generator=generator).to(device, dtype)
        keys, values = caches
        found, expected = (
            rule(q, keys, values, table, lengths, head_dim**-0.5).float() for rule in (attend, decode.attend)
        )
        apart = (found - expected).abs().max().item()
        if not apart <= _TOLERANCE:  # nor NaN
            raise RuntimeError(
                f"sglang_moss: on this GPU the attention of decoding steps is {apart:.3g} away from what it should be "
                f"(torch {torch.__version__}); take --attention-backend triton, and report it"
            )
