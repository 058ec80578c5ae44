"""What a request costs the HTTP process: processor time of its event loop's thread, and of all its threads.

    python -m sglang_moss.benchmarks.admission --url http://127.0.0.1:30000 --out admission.jsonl

The event loop is one thread, so its time a request bounds how many requests a second can be admitted, and how long the
last of those that come at once waits before the scheduler hears of it. Time of the other threads delays it too, as far
as they hold Python's lock. Voices are known, answers as short as they can be; what a request costs to be answered is
part of the figures. The server must run on this machine. Processor time grows where cores are shared: compare on a
machine at rest.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ..clients import AsyncMossClient
from ..clients.connection import DEFAULT_URL
from .loads.workloads import FRAMES_PER_SECOND, WORKLOADS, RequestMaker
from .runs.exiting import exit_on_sigterm, in_one_line
from .runs.host_memory import server_of
from .runs.record import record


@in_one_line("lines of the cases before are written")
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL, help="of the server (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("admission.jsonl"), help="file to append to (%(default)s)")
    parser.add_argument("--workload", choices=WORKLOADS, default="dialogue", help="whose bodies (%(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="clients (%(default)s)")
    parser.add_argument("--requests", type=int, default=192, help="of a case (%(default)s)")
    parser.add_argument("--label", help="put into every line: what was measured")
    args = parser.parse_args()
    record(args.out, cases(args))
    return 0


def cases(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for whole answers and one for streams, at each number of clients.

    Raises:
        OSError: no server of this machine listens there.
        ClientError: a request failed.
    """
    server = server_of(args.url)
    if server is None:
        raise OSError(f"no process of this machine listens at {args.url}, or not one that you may look at")
    script = RequestMaker(WORKLOADS[args.workload])  # its words, but one frame of speech
    for stream in (False, True):
        for concurrency in args.concurrency:
            maker = replace(script, stream=stream, case=f"admission-{stream}-{concurrency}")
            bodies = [one_frame(maker, index) for index in range(args.requests + 1)]
            yield {
                **({"label": args.label} if args.label else {}),
                "workload": args.workload,
                "stream": stream,
                "concurrency": concurrency,
                "requests": args.requests,
                "body_bytes": len(bodies[0]),
                **asyncio.run(_measure(args.url, server, bodies, stream, concurrency)),
            }


def one_frame(maker: RequestMaker, index: int) -> bytes:
    """The body of request `index`, with a script of its workload's length that is cut after a frame."""
    return maker.warm_up_body(index, 1 / FRAMES_PER_SECOND)


async def _measure(
    url: str, server: psutil.Process, bodies: Sequence[bytes], stream: bool, concurrency: int
) -> dict[str, float]:
    """Milliseconds a request; the first body makes the voices known and is not measured."""
    left = iter(bodies[1:])
    async with AsyncMossClient(url) as client:

        async def ask(body: bytes) -> None:
            if not stream:
                await client.answer(body)
                return
            async for _event in client.events(body):
                pass

        async def ask_on() -> None:
            for body in left:
                await ask(body)

        await ask(bodies[0])
        before, began = _cpu_seconds(server), time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(concurrency)))
        seconds, after = time.perf_counter() - began, _cpu_seconds(server)
    n_requests = len(bodies) - 1
    return {
        "main_thread_ms": 1e3 * (after.main_s - before.main_s) / n_requests,
        "main_thread_system_ms": 1e3 * (after.main_system_s - before.main_system_s) / n_requests,
        "process_ms": 1e3 * (after.all_s - before.all_s) / n_requests,
        "wall_ms": 1e3 * seconds / n_requests,
    }


@dataclass(frozen=True)
class _CpuSeconds:
    """Processor time of a server so far."""

    main_s: float  # of the first thread, which runs the event loop
    main_system_s: float  # thereof in the kernel
    all_s: float


def _cpu_seconds(server: psutil.Process) -> _CpuSeconds:
    threads = {thread.id: thread for thread in server.threads()}
    main = threads[server.pid]
    every = sum(thread.user_time + thread.system_time for thread in threads.values())
    return _CpuSeconds(main.user_time + main.system_time, main.system_time, every)


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
