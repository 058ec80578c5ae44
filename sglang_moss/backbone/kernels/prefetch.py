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
    threads = _THREADS_OF_A_WARP * n_warps
    if ahead is None:
        return 0, {"weight_ptr": otherwise, "N_PIECES": 0, "ROW_BYTES": 0, "HEAD_BYTES": 0, "PIECE": 1, "THREADS": 1}
    arguments = {"weight_ptr": ahead.weights, "N_PIECES": ahead.n_pieces, "ROW_BYTES": ahead.row_bytes}
    arguments |= {"HEAD_BYTES": ahead.head_bytes, "PIECE": ahead.piece_bytes, "THREADS": threads}
    return triton.cdiv(ahead.n_pieces, threads), arguments


@triton.jit
def prefetch(
    weight_ptr,
    program,
    N_PIECES: tl.constexpr,
    ROW_BYTES: tl.constexpr,
    HEAD_BYTES: tl.constexpr,
    PIECE: tl.constexpr,
    THREADS: tl.constexpr,
):
    """One piece for each thread of a program."""
    piece = tl.minimum(program * THREADS + tl.arange(0, THREADS), N_PIECES - 1).to(tl.int64)
    pieces_of_a_row: tl.constexpr = HEAD_BYTES // PIECE
    at = weight_ptr.to(tl.int64) + piece // pieces_of_a_row * ROW_BYTES + piece % pieces_of_a_row * PIECE
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [at, tl.full([THREADS], PIECE, tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
