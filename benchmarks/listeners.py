"""How many listeners a server serves at a promise: `moss-ttsd bench --listeners`.

    moss-ttsd bench --listeners --spread 0.5 --out listeners.jsonl --plot listeners.svg

Listeners come at random times (Poisson), each asks for one dialogue and hears it at the speed of playback; one in ten
has voices that the server does not know. The load is doubled while the promise is kept, then bisected. A line a load
(`listeners_load`), and one of the largest that was kept (`listeners`); `promise` says what the figures mean. Every load
takes `--warm-up`, `--window` and at most `--tail` seconds, less where the promise is broken sooner; no load is begun
that might not end within `--total-seconds`.
"""

import argparse
import functools
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from ..clients import AsyncMossClient
from ..clients.connection import DEFAULT_TIMEOUT_S, connection
from .listening.capacity_search import CapacitySearch
from .listening.listener import Listener
from .listening.load import ListeningLoad, arrivals
from .listening.promise import Heard, Promise, Window, figures
from .loads import loops
from .loads.ranks import ranks_of
from .loads.speech_reading import SpeechReader
from .loads.workloads import FRAMES_PER_SECOND, WORKLOADS, RequestMaker, Workload, share
from .runs.exiting import exit_on_sigterm, in_one_line
from .runs.gpu_memory import GpuWatch
from .runs.host_memory import resident_mib, server_of
from .runs.record import record
from .serving import add_connection_arguments, flush_cache

LOAD, RESULT = "listeners_load", "listeners"
_MAX_WORKERS = 4
_SETTLE_S = 1.0  # until a server has left what its listeners have left
_SLACK_S = 5.0  # of a load, for what stands around it
_WARM_UP_SECONDS = 2.0  # of speech


@dataclass(frozen=True)
class Dialogues:
    """The requests of one load by number: known voices, and now and then new ones."""

    maker: RequestMaker
    new_voices: float  # share of the requests

    def __call__(self, number: int) -> tuple[bytes, bool]:
        """The encoded body, and whether its voices are new."""
        is_new = has_new_voices(self.maker, number, self.new_voices)
        return replace(self.maker, uncached_references=is_new).body(number), is_new


def has_new_voices(maker: RequestMaker, number: int, new_voices: float) -> bool:
    """Whether a request is one of the share whose voices are new: the same ones in every load of a seed."""
    return random.Random(f"{maker.seed}/voice/{number}").random() < new_voices


@in_one_line("lines of the loads before are written")
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if the promise was kept at no load."""
    args = parser(prog).parse_args(argv)
    began = time.perf_counter()
    flush_cache(args)
    with httpx.Client(**connection(args.url, args.admin_api_key or args.api_key, DEFAULT_TIMEOUT_S)) as client:
        told = {"first_frames": args.first_frames, **ranks_of(client)}
    maker = RequestMaker(
        workload_of(args), seed=args.seed, stream=True, first_frames=args.first_frames, timings=args.timings
    )
    context = multiprocessing.get_context("spawn")  # this process has threads by then
    with ProcessPoolExecutor(min(_MAX_WORKERS, os.cpu_count() or 1), mp_context=context) as pool:
        warm_up(args, maker)
        measure = functools.partial(_measure, args, maker, pool)
        lines = record(args.out, search(args, measure, server_of(args.url), began, told), row)
    if args.plot is not None:
        from .listeners_plot import plot  # matplotlib is an extra

        plot(lines, args.plot)
    return 0 if any(line["benchmark"] == RESULT and line["kept"] for line in lines) else 1


def search(
    args: argparse.Namespace, measure: Callable[[float], Heard], server: Any, began: float, told: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A line for each load, and one for the largest that was kept.

    Args:
        measure: puts as many requests a second on what is measured.
        began: when the time that the command may take began, on the clock of `time.perf_counter`.
    """
    window, promise = window_of(args), promise_of(args)
    loads = CapacitySearch(args.first, args.most, args.resolution)
    best: dict[str, Any] = {"kept": False, "listeners": None, "promise": vars(promise)}
    n_loads = 0
    while (target := loads.next_load()) is not None:
        if time.perf_counter() - began + window.all_s + _SLACK_S > args.total_seconds:
            break
        rate = target / args.audio_seconds
        with GpuWatch() as gpu:
            heard = measure(rate)
        line = {
            "label": args.label,
            "workload": args.workload,
            "audio_seconds": args.audio_seconds,
            "spread": args.spread,
            "new_voices": args.new_voices,
            "buffer_s": args.buffer,
            "rate": rate,
            "offered_listeners": target,
            **figures(heard, promise),
            "gpu_memory_mib": gpu.peak_mib,
            "gpu_watts": gpu.mean_watts,
            "host_memory_mib": resident_mib(server),
            **told,
        }
        yield {"benchmark": LOAD, **line}
        n_loads += 1
        loads.tell(target, line["kept"])
        if loads.kept == target:
            best = line
        time.sleep(_SETTLE_S)
    yield {
        "benchmark": RESULT,
        **best,
        "n_loads": n_loads,
        "broken_at": loads.broken,
        "total_s": time.perf_counter() - began,
    }


def window_of(args: argparse.Namespace) -> Window:
    return Window(args.warm_up, args.window, args.tail)


def promise_of(args: argparse.Namespace) -> Promise:
    return Promise(args.first_audio_ms, args.first_audio_share, args.gapless_share)


def _measure(args: argparse.Namespace, maker: RequestMaker, pool: Executor, rate: float) -> Heard:
    maker = replace(maker, case=f"listeners-{rate:g}-{time.time_ns()}")  # no two loads share a script, or new voices
    window = window_of(args)
    frames = [maker.frames(number) for number in range(len(arrivals(rate, window.all_s, args.seed)))]
    read = SpeechReader(stream=True, expected_frames=frames, allow_silence=args.allow_silence)

    async def run() -> Heard:
        async with AsyncMossClient(args.url, args.api_key, args.timeout) as client:
            listener = Listener(speech_seconds, args.buffer, marks=timings_of if args.timings else None)
            streams = ListeningLoad(client.events, Dialogues(maker, args.new_voices), read, listener, pool)
            return await streams.run(rate, window, promise_of(args), args.seed)

    return loops.run(run())


def warm_up(args: argparse.Namespace, maker: RequestMaker) -> None:
    """One request that makes the voices known.

    Raises:
        ClientError: it failed.
    """

    async def run() -> None:
        body = maker.warm_up_body(0, min(_WARM_UP_SECONDS, args.audio_seconds))
        async with AsyncMossClient(args.url, args.api_key, args.timeout) as client:
            async for _event in client.events(body):
                pass

    loops.run(run())


def speech_seconds(event: bytes) -> float | None:
    """Seconds of speech in an answer of ours up to an event."""
    match json.loads(event):
        case {"meta_info": {"audio_seconds": float() | int() as seconds}}:
            return float(seconds)
    return None


def timings_of(event: bytes) -> Mapping[str, float]:
    """When the first sound passed each place on its way, as its event tells; empty: it does not."""
    match json.loads(event):
        case {"meta_info": {"timings": dict(timings)}}:
            return timings
    return {}


def workload_of(args: argparse.Namespace) -> Workload:
    """The workload that is asked for; `args.audio_seconds` is set to its length, whole frames."""
    workload = replace(WORKLOADS[args.workload], spread=args.spread)
    args.audio_seconds = args.audio_seconds or workload.seconds
    args.audio_seconds = round(args.audio_seconds * FRAMES_PER_SECOND) / FRAMES_PER_SECOND
    return replace(
        workload,
        seconds=args.audio_seconds,
        reference_seconds=args.reference_seconds or workload.reference_seconds,
    )


def row(line: dict[str, Any]) -> str:
    """A line as people read it."""
    if line["benchmark"] == RESULT:
        found = f"{line['listeners']:.0f} listeners at once" if line["kept"] else "at no load"
        return f"the promise is kept: {found} ({line['n_loads']} loads, {line['total_s']:.0f} s)"
    heard = "taken away early" if line["listeners"] is None else f"{line['listeners']:.0f} listened at once"
    first = "-" if line["ttfa_ms_p95"] is None else f"{line['ttfa_ms_p95']:.0f} ms"
    return (
        f"{line['offered_listeners']:6.0f} listeners ({line['rate']:.2f} requests/s): "
        f"{'kept' if line['kept'] else 'broken'}; {heard}, first audio p95 {first}, "
        f"{100 * line['gapless_share']:.1f} % without a gap, {line['n_failed']} of {line['n_requests']} failed"
    )


def parser(prog: str | None) -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_connection_arguments(found)
    found.add_argument("--allow-silence", action="store_true", help="let silent answers pass; for dummy weights")
    found.add_argument("--first-frames", type=int, help="of a stream's first event; by default the server's (4)")
    found.add_argument(
        "--timings", action="store_true", help="tell where a first sound's time goes; the server is on this machine"
    )
    add_load_arguments(found)
    return found


def add_load_arguments(found: argparse.ArgumentParser) -> None:
    """What a load is, how it is searched for, and where the lines go."""
    found.add_argument("--out", type=Path, default=Path("listeners.jsonl"), help="file to append to (%(default)s)")
    found.add_argument("--label", help="of the curve: how the server was started")
    found.add_argument("--plot", type=Path, help="picture of the loads, whose ending is its format; needs matplotlib")
    found.add_argument("--workload", choices=WORKLOADS, default="dialogue")
    found.add_argument("--spread", type=share, default=0.5, help="of lengths: from half to one and a half of it")
    found.add_argument("--audio-seconds", type=float, help="length of the speech, other than the workload's")
    found.add_argument("--reference-seconds", type=float, help="length of a reference, other than the workload's")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--new-voices", type=share, default=0.1, help="share of new voices (%(default)s)")
    found.add_argument("--buffer", type=float, default=5.0, help="seconds that a listener reads ahead (%(default)s)")
    found.add_argument("--first", type=float, default=128.0, help="listeners of the first load (%(default)s)")
    found.add_argument("--most", type=float, default=4096.0, help="listeners beyond which nothing is tried")
    found.add_argument("--resolution", type=float, default=0.05, help="share at which the search ends (%(default)s)")
    found.add_argument("--warm-up", type=float, default=30.0, help="seconds of a load before it counts (%(default)s)")
    found.add_argument("--window", type=float, default=30.0, help="seconds in which requests count (%(default)s)")
    found.add_argument("--tail", type=float, default=15.0, help="most seconds to wait for their ends (%(default)s)")
    found.add_argument("--total-seconds", type=float, default=450.0, help="for everything (%(default)s)")
    promise = found.add_argument_group("promise")
    promise.add_argument("--first-audio-ms", type=float, default=Promise.first_audio_ms)
    promise.add_argument("--first-audio-share", type=float, default=Promise.first_audio_share)
    promise.add_argument("--gapless-share", type=float, default=Promise.gapless_share)


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
