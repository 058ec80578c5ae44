"""What a product will read of its weights, for kernels that bring it into the GPU's L2 cache ahead of it.

Between two products a GPU's memory has little to do: rows are few, and kernels wait for one another. A kernel there can
have the cache read the beginning of what comes next meanwhile, of each row of weights as much, since products by
weights in 8 bits read many rows side by side from their beginning on. It changes no value.
"""

from typing import Any, NamedTuple

from torch import Tensor

UNIT = 512  # bytes, of which the beginning of a row has some
_LARGEST_PIECE = 2048  # bytes that are asked for at once
_ALIGNMENT = 16  # bytes, of what is asked for


class Ahead(NamedTuple):
    """The beginnings of a product's rows of weights."""

    weights: Tensor  # [N, K], contiguous
    head_bytes: int  # of each row, a multiple of UNIT

    @property
    def row_bytes(self) -> int:
        return self.weights.shape[1] * self.weights.element_size()

    @property
    def piece_bytes(self) -> int:
        """Of what is asked for at once: the largest power of two in the beginning of a row, up to a limit."""
        return min(_LARGEST_PIECE, self.head_bytes & -self.head_bytes)

    @property
    def n_bytes(self) -> int:
        return len(self.weights) * self.head_bytes


def ahead_of(weight: Any, n_bytes: int) -> Ahead | None:
    """Up to `n_bytes` of a product's weights; None: there would be too few, or they do not lie so that one can ask.

    Args:
        weight: [K, N], with the rows of [N, K] in memory, as SGLang keeps weights in 8 bits.
    """
    weights = weight.t()
    found = Ahead(weights, n_bytes // len(weights) // UNIT * UNIT)
    found = found._replace(head_bytes=min(found.head_bytes, found.row_bytes // UNIT * UNIT))
    is_aligned = weights.data_ptr() % _ALIGNMENT == 0 and found.row_bytes % _ALIGNMENT == 0
    return found if found.head_bytes > 0 and is_aligned and weights.is_contiguous() else None
