"""What a product will read of its weights, for kernels that bring it into the GPU's L2 cache ahead of it.

Between two products a GPU's memory has little to do: rows are few, and kernels wait for one another. A kernel there can
have the cache read the beginning of what comes next meanwhile, of each row of weights as much, since products read all
rows side by side. It changes no value.
"""

from typing import Any, NamedTuple

from torch import Tensor

_LEAST_HEAD = 512  # bytes; less is not worth asking for
_LARGEST_PIECE = 2048  # bytes that one thread asks for
_ALIGNMENT = 16  # bytes, of what is asked for


class Ahead(NamedTuple):
    """The beginnings of a product's rows of weights."""

    weights: Tensor  # [N, K], contiguous
    head_bytes: int  # of each row, a power of two

    @property
    def row_bytes(self) -> int:
        return self.weights.shape[1] * self.weights.element_size()

    @property
    def piece_bytes(self) -> int:
        return min(self.head_bytes, _LARGEST_PIECE)

    @property
    def n_pieces(self) -> int:
        return len(self.weights) * self.head_bytes // self.piece_bytes


def ahead_of(product: Any, n_bytes: int) -> Ahead | None:
    """Up to `n_bytes` of a product's weights; None: there are none, or not as a kernel can ask for them.

    Args:
        product: of SGLang's, whose `weight` is [N, K], or [K, N] with the rows of [N, K] in memory.
    """
    weights: Any = getattr(product, "weight", None)
    if n_bytes <= 0 or weights is None or weights.dim() != 2:
        return None
    weights = weights if weights.is_contiguous() else weights.t()
    found = Ahead(weights, _power_of_two(n_bytes // len(weights)))
    found = found._replace(head_bytes=min(found.head_bytes, _power_of_two(found.row_bytes)))
    is_aligned = weights.data_ptr() % _ALIGNMENT == 0 and found.row_bytes % _ALIGNMENT == 0
    return found if found.head_bytes >= _LEAST_HEAD and is_aligned and weights.is_contiguous() else None


def _power_of_two(most: int) -> int:
    """The largest that is not above it; 0: there is none."""
    return 1 << (most.bit_length() - 1) if most > 0 else 0
