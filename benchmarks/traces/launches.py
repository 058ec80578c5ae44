"""Kernels, copies and fills of a trace, and which of them one launch of a graph set off."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_LEAST_OF_A_GRAPH = 8  # kernels that share a launch; fewer: no graph
_KINDS = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Launch:
    """One kernel, copy or fill on the GPU; times in microseconds."""

    name: str
    stream: int
    start_us: float
    us: float
    correlation: int  # shared by all kernels of one graph launch

    @property
    def end_us(self) -> float:
        return self.start_us + self.us


@dataclass(frozen=True)
class Stretch:
    """What ran from the first kernel of some graphs to the first one of the last of them, in the order of time."""

    us: float
    all: list[Launch]
    own: list[Launch]  # on the graphs' stream
    beside: list[Launch]


def launches(trace: dict[str, Any]) -> list[Launch]:
    """What ran on the GPU, from a Chrome trace, in the order of time."""
    found = [
        Launch(e["name"], int(e["args"]["stream"]), float(e["ts"]), float(e["dur"]), int(e["args"]["correlation"]))
        for e in trace["traceEvents"]
        if e.get("cat") in _KINDS and e.get("ph") == "X"
    ]
    return sorted(found, key=lambda launch: launch.start_us)


def graphs(all_launches: Iterable[Launch]) -> list[list[Launch]]:
    """The kernels of each launch of a graph, in the order of the launches."""
    groups: dict[int, list[Launch]] = defaultdict(list)
    for launch in all_launches:
        groups[launch.correlation].append(launch)
    found = [group for group in groups.values() if len(group) >= _LEAST_OF_A_GRAPH]
    return sorted(found, key=lambda group: group[0].start_us)


def stretch_of(some_graphs: Sequence[Sequence[Launch]], all_launches: Iterable[Launch]) -> Stretch:
    """The stretch of at least two graphs, in order, whose stream is the one that most of their kernels are on."""
    stream = Counter(launch.stream for graph in some_graphs for launch in graph).most_common(1)[0][0]
    began, ended = some_graphs[0][0].start_us, some_graphs[-1][0].start_us
    inside = [launch for launch in all_launches if began <= launch.start_us < ended]
    own = [launch for launch in inside if launch.stream == stream]
    beside = [launch for launch in inside if launch.stream != stream]
    return Stretch(ended - began, inside, own, beside)


def busy_us(sorted_launches: Sequence[Launch]) -> float:
    """How long at least one of them runs."""
    busy, until = 0.0, float("-inf")
    for launch in sorted_launches:
        busy += max(0.0, launch.end_us - max(until, launch.start_us))
        until = max(until, launch.end_us)
    return busy
