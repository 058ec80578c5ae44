# pyright: reportCallIssue=false
"""Rotary embedding of queries and keys in one launch; the rule is `codec.rotary.rotate`.

out[2i]     = x[2i] * cos[i] - x[2i + 1] * sin[i]
out[2i + 1] = x[2i] * sin[i] + x[2i + 1] * cos[i]         in float32, rounded once
"""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["n_rows", "table_rows"])
def _rotate_kernel(
    qkv_ptr, cos_ptr, sin_ptr, n_rows, table_rows, n_heads, HEAD_DIM: tl.constexpr, BLOCK_PAIRS: tl.constexpr
):
    """One program turns all queries and keys of one row."""
    row = tl.program_id(0).to(tl.int64)
    entry = row // n_rows
    angle_row = entry * table_rows + row % n_rows  # table_rows 0: every entry has the same positions
    pair = tl.arange(0, BLOCK_PAIRS)
    is_pair = pair < n_heads * HEAD_DIM
    angle = angle_row * (HEAD_DIM // 2) + pair % (HEAD_DIM // 2)
    cos = tl.load(cos_ptr + angle, mask=is_pair, other=0.0)
    sin = tl.load(sin_ptr + angle, mask=is_pair, other=0.0)

    at = qkv_ptr + row * (3 * n_heads * HEAD_DIM) + 2 * pair[:, None] + tl.arange(0, 2)[None, :]
    even, odd = tl.split(tl.load(at, mask=is_pair[:, None], other=0.0).to(tl.float32))
    turned = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    tl.store(at, turned, mask=is_pair[:, None])


def rotate_queries_and_keys(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    """As `codec.rotary.rotate_queries_and_keys`."""
    n_batch, n_rows, _, n_heads, head_dim = qkv.shape
    assert qkv.is_contiguous()
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    block = triton.next_power_of_2(n_heads * head_dim)
    _rotate_kernel[(n_batch * n_rows,)](
        qkv,
        cos,
        sin,
        n_rows,
        n_rows if len(cos) == n_batch else 0,
        n_heads,
        HEAD_DIM=head_dim,
        BLOCK_PAIRS=block,
        num_warps=8 if block > 1024 else 4,
    )
