# pyright: reportCallIssue=false, reportArgumentType=false
"""Programs of a kernel that have the L2 cache read what the next product begins with; see `backbone.ahead`.

A kernel has them after its own programs, so that they run where these leave room, and as many as keep all of a GPU
asking: each asks for little. What they ask for may come after the kernel has ended.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from sglang_moss.backbone.ahead import UNIT, Ahead

_THREADS_OF_A_WARP = 32
_LEAST_PIECE = 128  # bytes that a thread asks for
PROGRAM_BYTES = 1 << 16  # that a program asks for; 16 MB are two programs for each of an H200's multiprocessors


def prefetch_arguments(kernel: Any, ahead: Ahead | None, n_warps: int, otherwise: Tensor) -> tuple[int, dict[str, Any]]:
    """How many programs more a kernel has, and what it is given for them.

    Args:
        n_warps: of the kernel.
        otherwise: any tensor on the GPU, given where there is nothing to be asked for.
    """
    if ahead is None or isinstance(kernel, InterpretedFunction):
        return 0, {"weight_ptr": otherwise, "AHEAD": None}
    threads = _THREADS_OF_A_WARP * n_warps
    piece = max(_LEAST_PIECE, min(UNIT, PROGRAM_BYTES // threads))
    n_pieces = ahead.n_bytes // piece
    sizes = n_pieces, ahead.row_bytes, ahead.head_bytes, piece, threads
    return triton.cdiv(n_pieces, threads), {"weight_ptr": ahead.weights, "AHEAD": sizes}


@triton.jit
def places_of_pieces(program, AHEAD: tl.constexpr):
    """Where the pieces of a program begin, in bytes from the first weight; the last ones ask for the same again."""
    n_pieces: tl.constexpr = AHEAD[0]
    row_bytes: tl.constexpr = AHEAD[1]
    pieces_of_a_row: tl.constexpr = AHEAD[2] // AHEAD[3]
    piece_bytes: tl.constexpr = AHEAD[3]
    piece = tl.minimum(program * AHEAD[4] + tl.arange(0, AHEAD[4]), n_pieces - 1).to(tl.int64)
    return piece // pieces_of_a_row * row_bytes + piece % pieces_of_a_row * piece_bytes


@triton.jit
def prefetch(weight_ptr, program, AHEAD: tl.constexpr):
    """One piece for each thread of a program."""
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [weight_ptr.to(tl.int64) + places_of_pieces(program, AHEAD), tl.full([AHEAD[4]], AHEAD[3], tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
