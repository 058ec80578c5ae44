"""How a decoding step's product by fp8 weights is cut into programs, and where it is left to SGLang."""

from typing import NamedTuple


class Cut(NamedTuple):
    """Of a product [B, K] by [K, N]."""

    columns: int  # of a program; N is a multiple
    depth: int  # of a tile, in elements of a row
    parts: int  # of every sum, each a whole number of tiles
    stages: int = 4
    n_warps: int = 4

    def fits(self, n_columns: int, size: int) -> bool:
        return n_columns % self.columns == 0 and size % (self.parts * self.depth) == 0


# Where products have few columns, SGLang's cover half of a GPU's multiprocessors.
_MOST_ROWS = 64
_NARROW = 4096  # columns
_CUT: Cut | None = Cut(columns=128, depth=128, parts=4)
# Wider ones cover it; what takes their sums expects them whole.
_CUT_OF_WIDE: Cut | None = None


def cut_for(n_rows: int, n_columns: int, size: int) -> Cut | None:
    """None: SGLang's own is taken.

    Args:
        n_rows: B.
        n_columns: N.
        size: K.
    """
    cut = _CUT if n_columns <= _NARROW else _CUT_OF_WIDE
    return cut if cut is not None and n_rows <= _MOST_ROWS and cut.fits(n_columns, size) else None
