"""Kernels, copies and fills of a trace, and which of them one launch of a graph set off."""

from collections import defaultdict
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


def busy_us(sorted_launches: Sequence[Launch]) -> float:
    """How long at least one of them runs."""
    busy, until = 0.0, float("-inf")
    for launch in sorted_launches:
        busy += max(0.0, launch.end_us - max(until, launch.start_us))
        until = max(until, launch.end_us)
    return busy
