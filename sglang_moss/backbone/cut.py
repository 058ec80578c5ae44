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
_MOST_COLUMNS = 4096
_CUT = Cut(columns=128, depth=128, parts=4)


def cut_for(n_rows: int, n_columns: int, size: int) -> Cut | None:
    """None: SGLang's own is taken.

    Args:
        n_rows: B.
        n_columns: N.
        size: K.
    """
    is_ours = n_rows <= _MOST_ROWS and n_columns <= _MOST_COLUMNS and _CUT.fits(n_columns, size)
    return _CUT if is_ours else None
