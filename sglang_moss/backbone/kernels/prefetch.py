# pyright: reportCallIssue=false, reportArgumentType=false
"""Programs of a kernel that have the L2 cache read what the next product begins with; see `backbone.ahead`.

A kernel has them after its own programs, so that they run where these leave room. Each asks for little, so that they
are enough to keep all of a GPU asking, and few threads of a warp ask, since they do so one after the other. What they
ask for may come after the kernel has ended.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from sglang_moss.backbone.ahead import Ahead

PROGRAM_BYTES = 1 << 16  # that a program asks for at most; 16 MB are two programs for each of an H200's multiprocessors
_THREADS_OF_A_WARP = 32


def prefetch_arguments(kernel: Any, ahead: Ahead | None, n_warps: int, otherwise: Tensor) -> tuple[int, dict[str, Any]]:
    """How many programs more a kernel has, and what it is given for them.

    Args:
        n_warps: of the kernel, a power of two.
        otherwise: any tensor on the GPU, given where there is nothing to be asked for.
    """
    if ahead is None or isinstance(kernel, InterpretedFunction):
        return 0, {"weight_ptr": otherwise, "AHEAD": None}
    threads, piece = _THREADS_OF_A_WARP * n_warps, ahead.piece_bytes
    asking = min(threads, 1 << (max(1, PROGRAM_BYTES // piece).bit_length() - 1))  # a power of two, as threads are
    n_pieces = ahead.n_bytes // piece
    sizes = n_pieces, ahead.row_bytes, ahead.head_bytes, piece, threads, threads // asking
    return triton.cdiv(n_pieces, asking), {"weight_ptr": ahead.weights, "AHEAD": sizes}


@triton.jit
def pieces_of(program, AHEAD: tl.constexpr):
    """For each thread of a program where its piece begins, in bytes from the first weight, and whether it has one."""
    pieces_of_a_row: tl.constexpr = AHEAD[2] // AHEAD[3]
    step: tl.constexpr = AHEAD[5]
    thread = tl.arange(0, AHEAD[4])
    piece = (program * (AHEAD[4] // step) + thread // step).to(tl.int64)
    place = piece // pieces_of_a_row * AHEAD[1] + piece % pieces_of_a_row * AHEAD[3]
    return place, ((thread % step == 0) & (piece < AHEAD[0])).to(tl.int32)


@triton.jit
def prefetch(weight_ptr, program, AHEAD: tl.constexpr):
    """Ask for the pieces of a program."""
    place, asks = pieces_of(program, AHEAD)
    tl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.s32 p, $3, 0; @p cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }",
        "=r,l,r,r",
        [weight_ptr.to(tl.int64) + place, tl.full([AHEAD[4]], AHEAD[3], tl.int32), asks],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
