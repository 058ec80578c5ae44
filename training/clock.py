"""How many steps fit into the time that a run has, as they turn out to last; the same on every rank."""

import time

from .distributed import World

_FIRST = 20  # steps that compile and warm up, and say nothing
_EVERY = 50  # steps between two looks


class Clock:
    """Starts when it is made."""

    def __init__(self, seconds: float, world: World) -> None:
        self._ends = time.monotonic() + seconds
        self._world = world
        self._at_first: tuple[int, float] | None = None

    def n_steps(self, step: int, so_far: int, most: int) -> int:
        """Steps of the run; every rank calls this after every step.

        Args:
            step: steps done.
            so_far: what was said last.
            most: what the run was told, which no time adds to.
        """
        now = time.monotonic()
        if self._at_first is None:
            self._at_first = (step + _FIRST, now)
        first, began = self._at_first
        if step <= first:
            if step == first:
                self._at_first = (step, now)
            return so_far
        if (step - first) % _EVERY:
            return so_far
        each = (now - began) / (step - first)
        return self._world.from_leader(max(step, min(most, step + int((self._ends - now) / each))))
