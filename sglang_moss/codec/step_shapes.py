"""The few (streams, frames) shapes that decoding steps have on a GPU, so that each can be a captured graph.

streams 1, 2, 4, ... max_streams    x    frames min_frames ... 4, 8, ... max_frames        with streams * frames <= 512
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import TypeAlias

Shape: TypeAlias = tuple[int, int]  # streams, frames of each

# A step of so many frames keeps a large GPU busy; a larger one would only delay who comes next, and cost memory.
MAX_STEP_FRAMES = 512


@dataclass(frozen=True)
class StepShapes:
    """All shapes up to `max_streams` streams and `max_frames` frames of each; none has less than `min_frames`."""

    max_streams: int
    max_frames: int
    min_frames: int = 1

    def all(self) -> list[Shape]:
        """Every (streams, frames), the largest step first."""
        shapes = [(s, f) for f in self._frames() for s in self._streams(f)]
        return sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape), reverse=True)

    def largest_batch(self, n_frames: int) -> int:
        """How many streams fit one step whose longest stretch has `n_frames`; ValueError beyond `max_frames`."""
        return self._streams(self._frames_for(n_frames))[-1]

    def smallest(self, n_streams: int, n_frames: int) -> Shape:
        """The shape for a batch of `n_streams` whose longest stretch has `n_frames`; ValueError if there is none."""
        frames = self._frames_for(n_frames)
        streams = self._streams(frames)
        if n_streams > streams[-1]:
            raise ValueError(f"a step of {n_frames} frames takes {streams[-1]} streams, got {n_streams}")
        return streams[bisect_left(streams, n_streams)], frames

    def _frames_for(self, n_frames: int) -> int:
        if n_frames > self.max_frames:
            raise ValueError(f"a step takes {self.max_frames} frames of a stream, got {n_frames}")
        return self._frames()[bisect_left(self._frames(), n_frames)]

    def _frames(self) -> list[int]:
        return [n for n in _powers_of_two_to(self.max_frames) if n >= min(self.min_frames, self.max_frames)]

    def _streams(self, n_frames: int) -> list[int]:
        return _powers_of_two_to(max(1, min(self.max_streams, MAX_STEP_FRAMES // n_frames)))


def _powers_of_two_to(last: int) -> list[int]:
    """1, 2, 4, ... and `last`."""
    return [1 << i for i in range((last - 1).bit_length())] + [last]
