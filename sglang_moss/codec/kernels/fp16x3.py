# pyright: reportArgumentType=false
"""Rows of float32 as two halves each, in one launch; the rule is `codec.fp16x3.split_reference`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.codec.fp16x3 import LOW_SCALE

_BLOCK = 1024


@triton.jit(do_not_specialize=["n"])
def _split_kernel(x_ptr, out_ptr, n, n_in, LOW_SCALE: tl.constexpr, BLOCK: tl.constexpr):
    """One program splits a run of values, which may go over the ends of rows."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_value = at < n
    x = tl.load(x_ptr + at, mask=is_value, other=0.0)
    high = x.to(tl.float16)
    low = ((x - high.to(tl.float32)) * LOW_SCALE).to(tl.float16)
    out = out_ptr + at // n_in * (2 * n_in) + at % n_in
    tl.store(out, low, mask=is_value)
    tl.store(out + n_in, high, mask=is_value)


def split(x: Tensor) -> Tensor:
    """As `codec.fp16x3.split`, for contiguous rows."""
    n_rows, n_in = x.shape
    assert x.is_contiguous()
    out = torch.empty(n_rows, 2 * n_in, dtype=torch.float16, device=x.device)
    _split_kernel[(triton.cdiv(x.numel(), _BLOCK),)](x, out, x.numel(), n_in, LOW_SCALE=LOW_SCALE, BLOCK=_BLOCK)
    return out
