"""What a check found: a line a case."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Case:
    """One case and what differs in it."""

    name: str
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # how near what was compared is

    def equal(self, what: str, made: np.ndarray, stored: np.ndarray) -> None:
        """Two arrays of integers must be one."""
        if made.shape != stored.shape:
            self.differences.append(f"{what}: shape {list(made.shape)}, stored {list(stored.shape)}")
        elif (made != stored).any():
            at = np.argwhere(made != stored)
            first = tuple(at[0])
            self.differences.append(
                f"{what}: {len(at)} entries differ, first {first}: {made[first]}, stored {stored[first]}"
            )

    def close(self, what: str, made: Iterable[float], stored: Iterable[float], relative: float) -> None:
        """Two lists of numbers must agree: the largest difference within `relative` of the largest number."""
        a, b = np.ravel(np.array(list(made), np.float64)), np.ravel(np.array(list(stored), np.float64))
        if a.shape != b.shape:
            self.differences.append(f"{what}: {len(a)} values, stored {len(b)}")
            return
        gap = float(np.abs(a - b).max(initial=0.0))
        scale = float(np.abs(b).max(initial=0.0))
        if not gap <= relative * scale:
            self.differences.append(f"{what}: off by {gap:.3g} of {scale:.3g}, allowed {relative:g} of it")
        self.notes.append(f"{what} {gap / scale if scale else gap:.1e}")

    def __str__(self) -> str:
        if self.differences:
            return f"DIFFERS {self.name}: " + "; ".join(self.differences)
        return f"ok      {self.name}" + (f" ({', '.join(self.notes)})" if self.notes else "")
