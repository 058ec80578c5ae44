# pyright: reportCallIssue=false, reportArgumentType=false
"""The product of a few rows by fp8 weights, cut along what is summed over; the rule is `operations.multiply`.

A decoding step reads all weights for few rows, so memory is what it waits for; a product of few columns, cut into tiles
of them alone, would leave half of a GPU's multiprocessors with nothing to read. One program has some columns and a part
of each sum. What its rows are multiplied by stands first, [N, K] by [K, B]: tensor cores take 64 rows and no less, and
8 columns.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.backbone.cut import Cut
from sglang_moss.backbone.operations import Quantized

_LEAST_ROWS = 16  # of a tile


def multiply(rows: Quantized, weight: Tensor, weight_scales: Tensor, cut: Cut) -> Tensor:
    """As `operations.multiply`; weights have the rows of [N, K] in memory, and scales are contiguous."""
    n_rows, (size, n_columns) = len(rows.rows), weight.shape
    shape = (cut.parts, n_rows, n_columns) if cut.parts > 1 else (n_rows, n_columns)
    dtype = torch.float32 if cut.parts > 1 else rows.dtype
    out = torch.empty(shape, dtype=dtype, device=weight.device)
    kernel: Any = _product_kernel[(n_columns // cut.columns, cut.parts)]
    kernel(
        rows.rows,
        rows.scales,
        weight,
        weight_scales,
        out,
        n_rows,
        SIZE=size,
        N=n_columns,
        ROWS=max(_LEAST_ROWS, triton.next_power_of_2(n_rows)),
        COLUMNS=cut.columns,
        DEPTH=cut.depth,
        PART=size // cut.parts,
        STAGES=cut.stages,
        num_warps=cut.n_warps,
    )
    return out


@triton.jit(do_not_specialize=["n_rows"])
def _product_kernel(
    row_ptr,
    row_scale_ptr,
    weight_ptr,
    weight_scale_ptr,
    out_ptr,
    n_rows,
    SIZE: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PART: tl.constexpr,
    STAGES: tl.constexpr,
):
    part = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)[None, :]
    inside = row < n_rows
    sums = tl.zeros([COLUMNS, ROWS], tl.float32)
    first = part * PART
    for start in tl.range(first, first + PART, DEPTH, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        at = start + tl.arange(0, DEPTH)
        weights = tl.load(weight_ptr + column[:, None] * SIZE + at[None, :])
        rows = tl.load(row_ptr + row * SIZE + at[:, None], mask=inside, other=0.0)
        sums = tl.dot(weights, rows, sums)
    sums *= tl.load(weight_scale_ptr + column)[:, None]
    sums *= tl.load(row_scale_ptr + row, mask=inside, other=0.0)
    at_out = out_ptr + (part * n_rows + row).to(tl.int64) * N + column[:, None]
    tl.store(at_out, sums.to(out_ptr.dtype.element_ty), mask=inside)
