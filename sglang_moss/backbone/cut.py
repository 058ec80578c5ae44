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


_MOST_ROWS = 64
# Of products that a norm follows, which adds parts up, and of others.
_CUT: Cut | None = Cut(columns=128, depth=128, parts=4)
_WHOLE_CUT: Cut | None = None


def cut_for(n_rows: int, n_columns: int, size: int, may_have_parts: bool) -> Cut | None:
    """None: SGLang's own is taken.

    Args:
        n_rows: B.
        n_columns: N.
        size: K.
        may_have_parts: whether what takes the product adds parts up.
    """
    cut = _CUT if may_have_parts else _WHOLE_CUT
    if cut is None or n_rows > _MOST_ROWS or not cut.fits(n_columns, size):
        return None
    return cut if may_have_parts or cut.parts == 1 else None
