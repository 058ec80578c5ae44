"""What one decode step launches on the GPU: kernels by name, their time, and the gaps between them.

    MOSS_ADMIN_API_KEY=KEY python -m sglang_moss.benchmarks.step_profile --running 1 64 --out steps.jsonl

Keeps `--running` requests going on a running server, has SGLang's profiler record a few steps, and reads the trace. A
step begins with a launch of the decode graph, of which the trace holds one group of kernels a step. Kernels on that
graph's stream are the language model's; those on others run beside it: the codec's.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..clients import AsyncMossClient
from .loads import loops
from .loads.workloads import WORKLOADS, RequestMaker
from .runs.record import record
from .serving import add_connection_arguments
from .traces.launches import Launch, busy_us, graphs, launches, stretch_of
from .traces.recording import recorded

_SECONDS = 120.0  # of speech: the requests still run when the last step is recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_connection_arguments(parser)
    parser.add_argument("--running", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--steps", type=int, default=20, help="to record (%(default)s)")
    parser.add_argument("--settle-seconds", type=float, default=4.0, help="from all being sent to the first step")
    parser.add_argument("--label", default="", help="put into every line, to tell before from after")
    parser.add_argument("--names", type=int, default=40, help="kernels to name, those with the most time")
    parser.add_argument("--cpu", action="store_true", help="record the host too; slows the step down")
    parser.add_argument("--trace-dir", type=Path, help="keep the traces there; a folder that the server can write")
    parser.add_argument("--out", type=Path, default=Path("steps.jsonl"))
    args = parser.parse_args()
    record(args.out, profiles(args))


def profiles(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for running in args.running:
            traces = args.trace_dir or Path(folder)
            trace = loops.run(_recorded_trace(args, running, traces))
            origin = {"running": running, "label": args.label}
            for line in step_lines(launches(trace), args.names):
                yield {**origin, **line}


def step_lines(all_launches: Sequence[Launch], n_names: int) -> Iterator[dict[str, Any]]:
    """First a line on the mean step, then one for each kernel name, per step.

    Raises:
        ValueError: the trace does not hold two steps of a decode graph.
    """
    steps = _decode_graphs(all_launches)
    n_steps = len(steps) - 1
    stretch = stretch_of(steps, all_launches)
    own, beside, period_us = stretch.own, stretch.beside, stretch.us / n_steps
    yield {
        "check": "step",
        "n_steps": n_steps,
        "step_us": period_us,
        "launches": len(own) / n_steps,
        "graph_kernels": sum(map(len, steps[:-1])) / n_steps,
        "graph_us": sum(graph[-1].end_us - graph[0].start_us for graph in steps[:-1]) / n_steps,
        "gpu_us": sum(launch.us for launch in own) / n_steps,
        "idle_us": period_us - busy_us(own) / n_steps,
        "launches_beside": len(beside) / n_steps,
        "gpu_us_beside": sum(launch.us for launch in beside) / n_steps,
        "idle_us_of_all_streams": period_us - busy_us(stretch.all) / n_steps,
    }
    for where, part in (("step", own), ("beside", beside)):
        names: dict[str, list[float]] = defaultdict(list)
        for launch in part:
            names[launch.name].append(launch.us)
        for name, times in sorted(names.items(), key=lambda item: -sum(item[1]))[:n_names]:
            yield {
                "check": "kernel",
                "where": where,
                "name": name[:120],
                "launches": len(times) / n_steps,
                "gpu_us": sum(times) / n_steps,
            }


def _decode_graphs(all_launches: Sequence[Launch]) -> list[list[Launch]]:
    """The kernels of each launch of the decode graph: of all graphs, the one with the most time in the trace."""
    by_size: dict[int, list[list[Launch]]] = defaultdict(list)
    for graph in graphs(all_launches):
        by_size[len(graph)].append(graph)
    found = max(by_size.values(), key=lambda same: sum(g.us for group in same for g in group), default=[])
    if len(found) < 2:
        raise ValueError("the trace holds no two launches of a decode graph: are CUDA graphs on, and enough steps?")
    return found


async def _recorded_trace(args: argparse.Namespace, running: int, folder: Path) -> dict[str, Any]:
    """Profile while `running` requests decode; they are dropped afterwards."""
    workload = replace(WORKLOADS["dialogue"], seconds=_SECONDS)
    maker = RequestMaker(workload, case=f"profile-{running}-{time.time_ns()}")
    async with AsyncMossClient(args.url, args.api_key, args.timeout) as client:
        asking = [asyncio.create_task(client.answer(maker.body(i))) for i in range(running)]
        await asyncio.sleep(args.settle_seconds)
        try:
            return await recorded(args, folder, args.steps, ["CPU", "GPU"] if args.cpu else ["GPU"], asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
