"""Triton kernels of the codec's layers, each beside the plain torch that it must equal.

The plain torch owns the rule and runs wherever a kernel cannot. This module imports no Triton, so that a machine
without a GPU needs none; the kernels' modules are imported where they are first used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own switch: kernels run in Python, on the CPU
_allowed = True


def run_on(x: Tensor) -> bool:
    """Whether kernels take the place of plain torch for tensors that live where `x` does."""
    return _allowed and (x.is_cuda or (_INTERPRETED and x.device.type == "cpu"))


@contextmanager
def plain_torch() -> Iterator[None]:
    """Use no kernel in this block, in any thread: what kernels are compared with."""
    global _allowed
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before
