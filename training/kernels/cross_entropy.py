# pyright: reportCallIssue=false
"""Cross entropy in one launch, in place; the rule is `cross_entropy.cross_entropy_reference`.

One program does one row: it reads the row twice, the second time mostly from the cache, and writes it once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..rows import IGNORED

_MAX_BLOCK = 16_384


def cross_entropy_kernel(logits: Tensor, labels: Tensor, scales: Tensor) -> Tensor:
    """See `cross_entropy.cross_entropy_`."""
    n_rows, n_values = logits.shape
    assert logits.is_contiguous(), logits.stride()
    assert labels.shape == (n_rows,), f"{labels.shape} labels of {n_rows} rows"
    assert n_rows % len(scales) == 0, f"{n_rows} rows of {len(scales)} channels"
    losses = torch.empty(n_rows, dtype=torch.float32, device=logits.device)
    block = min(_MAX_BLOCK, triton.next_power_of_2(n_values))
    if n_rows:
        _cross_entropy_kernel[(n_rows,)](
            logits,
            labels.contiguous(),
            scales,
            losses,
            len(scales),
            n_values,
            IGNORED=IGNORED,
            BLOCK=block,
            num_warps=max(1, min(16, block // 512)),
        )
    return losses


@triton.jit
def _cross_entropy_kernel(
    logits_ptr,
    labels_ptr,
    scales_ptr,
    losses_ptr,
    C,
    V,
    IGNORED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels_ptr + row)
    scale = tl.load(scales_ptr + row % C)
    line = logits_ptr + row * V
    v = tl.arange(0, BLOCK)
    if label == IGNORED:
        tl.store(losses_ptr + row, 0.0)
        for start in range(0, V, BLOCK):
            tl.store(line + start + v, tl.zeros((BLOCK,), tl.float32), mask=start + v < V)
    else:
        picked = tl.load(line + label).to(tl.float32)
        highest = tl.full((BLOCK,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, V, BLOCK):
            x = tl.load(line + start + v, mask=start + v < V, other=float("-inf")).to(tl.float32)
            higher = tl.maximum(highest, x)
            # A lane that has seen nothing yet is at -inf, and so is what it holds.
            held = tl.where(highest == float("-inf"), 0.0, total * tl.exp(highest - higher))
            total = held + tl.where(x == float("-inf"), 0.0, tl.exp(x - higher))
            highest = higher
        top = tl.max(highest, axis=0)
        log_sum = top + tl.log(tl.sum(total * tl.exp(highest - top), axis=0))
        tl.store(losses_ptr + row, log_sum - picked)
        for start in range(0, V, BLOCK):
            inside = start + v < V
            x = tl.load(line + start + v, mask=inside, other=float("-inf")).to(tl.float32)
            gradient = tl.exp(x - log_sum) - tl.where(start + v == label, 1.0, 0.0)
            tl.store(line + start + v, gradient * scale, mask=inside)
