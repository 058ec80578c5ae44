"""The largest load at which a promise is kept, found in few tries: doubled or halved first, then bisected."""


class CapacitySearch:
    """Asks for one load after the other; takes it that what is kept at a load is kept at a smaller one.

    Args:
        first: load to begin with, above 0.
        most: larger ones are not tried.
        resolution: the search ends when the gap between what was kept and what was broken is this share of the former.
    Attributes:
        kept: the largest load at which the promise was kept; None: at none so far.
        broken: the smallest one at which it was not.
    """

    def __init__(self, first: float, most: float, resolution: float) -> None:
        self._first = min(first, most)
        self._most = most
        self._resolution = resolution
        self.kept: float | None = None
        self.broken: float | None = None

    def next_load(self) -> float | None:
        """What to try now; None: the answer is known, or there is nothing below a load of 1."""
        match self.kept, self.broken:
            case None, None:
                return self._first
            case None, float(broken):
                return broken / 2 if broken >= 2 else None
            case float(kept), None:
                return min(2 * kept, self._most) if kept < self._most else None
            case float(kept), float(broken):
                return (kept + broken) / 2 if broken - kept > self._resolution * kept else None
        raise AssertionError  # loads are floats

    def tell(self, load: float, kept: bool) -> None:
        """What came of a load."""
        if kept:
            self.kept = max(float(load), self.kept or 0.0)
        else:
            self.broken = min(float(load), self.broken or float("inf"))
