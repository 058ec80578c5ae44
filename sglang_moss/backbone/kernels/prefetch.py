# pyright: reportCallIssue=false, reportArgumentType=false
"""Programs of a kernel that have the L2 cache read what the next product begins with; see `backbone.ahead`.

A kernel has them after its own programs, so that they run where these leave room. They wait for nothing: what they ask
for may come after the kernel has ended.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from sglang_moss.backbone.ahead import Ahead

_THREADS_OF_A_WARP = 32


def prefetch_arguments(ahead: Ahead | None, n_warps: int, otherwise: Tensor) -> tuple[int, dict[str, Any]]:
    """How many programs more a kernel has, and what it is given for them.

    Args:
        n_warps: of the kernel.
        otherwise: any tensor on the GPU, given where there is nothing to be asked for.
    """
    if ahead is None:
        return 0, {"weight_ptr": otherwise, "AHEAD": None}
    threads = _THREADS_OF_A_WARP * n_warps
    sizes = ahead.n_pieces, ahead.row_bytes, ahead.head_bytes, ahead.piece_bytes, threads
    return triton.cdiv(ahead.n_pieces, threads), {"weight_ptr": ahead.weights, "AHEAD": sizes}


@triton.jit
def prefetch(weight_ptr, program, AHEAD: tl.constexpr):
    """One piece for each thread of a program."""
    n_pieces: tl.constexpr = AHEAD[0]
    row_bytes: tl.constexpr = AHEAD[1]
    head_bytes: tl.constexpr = AHEAD[2]
    piece_bytes: tl.constexpr = AHEAD[3]
    threads: tl.constexpr = AHEAD[4]
    piece = tl.minimum(program * threads + tl.arange(0, threads), n_pieces - 1).to(tl.int64)
    pieces_of_a_row: tl.constexpr = head_bytes // piece_bytes
    at = weight_ptr.to(tl.int64) + piece // pieces_of_a_row * row_bytes + piece % pieces_of_a_row * piece_bytes
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [at, tl.full([threads], piece_bytes, tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
