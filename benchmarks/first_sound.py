"""Where the milliseconds of a stream's first sound go, from the client's sending to its samples.

    python -m sglang_moss.benchmarks.first_sound --concurrency 1 16 --first-frames 4 1 --out first_sound.jsonl

Closed loop of streams, each of which tells when its first event passed each place on its way (`custom_params.timings`).
One line a case: voices that the server knows, and new ones with every request; every concurrency; every size of the
first event. With `--reference-root`, also known ones that requests name by their clip's path, not sending it along. The
server has to stand on the same machine: all times are of its monotonic clock.

The parts of one stream add up to its first audio, as the client has it, exactly; so do their means. Medians need not:
`remainder_ms_p50` is what theirs leave.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..clients import AsyncMossClient, ClientError, SpeechChunk
from .loads import loops
from .loads.first_sound_parts import figures, parts_ms, table
from .loads.loops import Exchange, Load
from .loads.speech_reading import SpeechReader, SpeechReading
from .loads.statistics import mean
from .loads.workloads import WORKLOADS, RequestMaker
from .runs.exiting import exit_on_sigterm, in_one_line
from .runs.record import record
from .serving import add_connection_arguments, flush_cache

_BENCHMARK = "first_sound"
_WORKERS = 2
_VOICES = ("known", "by-path", "new")  # by-path: known ones too, whose clips do not travel


@in_one_line("lines of the cases before are written")
def main(argv: Sequence[str] | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if a request failed."""
    args = parser().parse_args(argv)
    if "by-path" in args.voices and args.reference_root is None:
        raise SystemExit("error: --voices by-path: the server's folder of clips is to be told, --reference-root")
    flush_cache(args)
    lines = record(args.out, cases(args), _row)
    print(table(lines))
    return 1 if any(line["n_failed"] for line in lines) else 0


def cases(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run every case; a line each.

    Raises:
        ClientError: a request failed already while the server was warmed up, or tells no times of this machine.
    """
    workload = WORKLOADS[args.workload]
    workload = replace(
        workload,
        seconds=args.audio_seconds or workload.seconds,
        reference_seconds=args.reference_seconds or workload.reference_seconds,
    )
    maker = RequestMaker(workload, seed=args.seed, stream=True, timings=True)
    context = multiprocessing.get_context("spawn")  # this process has threads by then
    with ProcessPoolExecutor(min(_WORKERS, os.cpu_count() or 1), mp_context=context) as pool:
        for first_frames in args.first_frames or [None]:
            for voices in args.voices:
                for concurrency in args.concurrency:
                    case = replace(
                        maker,
                        case=f"{voices}-{concurrency}-{first_frames}-{time.time_ns()}",  # new to the server
                        first_frames=first_frames,
                        uncached_references=voices == "new",
                        folder=args.reference_root if voices == "by-path" else None,
                    )
                    yield {
                        "benchmark": _BENCHMARK,
                        **({"label": args.label} if args.label else {}),
                        "workload": workload.name,
                        "audio_seconds": workload.seconds,
                        "voices": voices,
                        "concurrency": concurrency,
                        "first_frames": first_frames,
                        **loops.run(_case(args, case, pool, concurrency)),
                    }


async def _case(args: argparse.Namespace, maker: RequestMaker, pool: Executor, concurrency: int) -> dict[str, Any]:
    n_requests = max(args.rounds * concurrency, args.least_requests)
    seconds = min(args.warm_up_seconds, maker.workload.seconds)
    warm_up = [maker.warm_up_body(i, seconds) for i in range(1 + concurrency)]
    bodies = [maker.body(i) for i in range(n_requests)]
    async with AsyncMossClient(args.url, args.api_key, args.timeout) as client:
        # The first one alone makes the voices known; the others then find them, and warm the batch up.
        for part in (warm_up[:1], warm_up[1:]):
            warming = Load(_Asker(client, part), _Reader(None), pool)
            for exchange in await warming.closed_loop(len(part), len(part)):
                if problem := _failure(exchange):
                    raise ClientError(f"while warming up: {problem}")
        asker = _Asker(client, bodies)
        read = _Reader([maker.frames(i) for i in range(n_requests)])
        exchanges = await Load(asker, read, pool).closed_loop(n_requests, concurrency)
    return summary(exchanges, asker.firsts)


def summary(exchanges: Sequence["Exchange[Numbered]"], firsts: dict[int, "FirstEvent"]) -> dict[str, Any]:
    """The figures of one case.

    Raises:
        UnusableAnswer: a server that tells no times, or those of another machine.
    """
    failures = Counter(failure for failure in map(_failure, exchanges) if failure is not None)
    passed = [(e, e.reading) for e in exchanges if _failure(e) is None and e.reading is not None]
    streams = []
    for exchange, reading in passed:
        first = firsts[reading.number]
        streams.append(parts_ms(exchange.sent_s, first.timings, first.arrived_s, exchange.arrivals_s[0]))
    return {
        "n_requests": len(exchanges),
        "n_failed": sum(failures.values()),
        "failures": dict(failures.most_common()),
        **figures(streams),
        "first_event_frames": mean(firsts[reading.number].frames for _, reading in passed),
        "prompt_tokens": mean(r.speech.prompt_tokens for _, r in passed if r.speech.prompt_tokens is not None),
        "cached_tokens": mean(r.speech.cached_tokens for _, r in passed if r.speech.cached_tokens is not None),
        "references_cached_share": mean(bool(reading.speech.reference_cached) for _, reading in passed),
    }


@dataclass(frozen=True)
class FirstEvent:
    """What a client knows of a stream's first event.

    Attributes:
        arrived_s: when all of it was here, on the clock of `time.perf_counter`.
        timings: `meta_info.timings`.
        frames: that it holds.
    """

    arrived_s: float
    timings: dict[str, float]
    frames: int


@dataclass(frozen=True)
class Numbered:
    """A reading, and the number of its request."""

    number: int
    speech: SpeechReading


class _Asker:
    """Sends requests by number; reads of each answer the first event, before it hands it on."""

    def __init__(self, client: AsyncMossClient, bodies: Sequence[bytes]) -> None:
        self.firsts: dict[int, FirstEvent] = {}
        self._client = client
        self._bodies = bodies

    async def __call__(self, number: int) -> AsyncIterator[bytes]:
        async for event in self._client.events(self._bodies[number]):
            if number not in self.firsts:
                arrived = time.perf_counter()
                meta = SpeechChunk.from_event(event).meta
                self.firsts[number] = FirstEvent(arrived, meta.get("timings", {}), meta.get("audio_frames", 0))
            yield event


class _Reader:
    """Reads whole answers; what they sound like is not looked at."""

    def __init__(self, expected_frames: Sequence[int] | None) -> None:
        self._read = SpeechReader(stream=True, expected_frames=expected_frames, allow_silence=True)

    def __call__(self, number: int, parts: list[bytes]) -> Numbered:
        return Numbered(number, self._read(number, parts))


def _failure(exchange: Exchange[Numbered]) -> str | None:
    if exchange.error is not None:
        return exchange.error
    return exchange.reading.speech.problem if exchange.reading is not None else "no answer"


def _row(line: dict[str, Any]) -> str:
    first = line["first_audio_ms_p50"]
    size = "" if line["first_frames"] is None else f", first_frames {line['first_frames']}"
    return (
        f"{line['voices']} voices, {line['concurrency']} at once{size}: first audio p50 "
        f"{'-' if first is None else f'{first:.0f} ms'}, {line['n_failed']} of {line['n_requests']} failed"
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_connection_arguments(found)
    found.add_argument("--out", type=Path, default=Path("first_sound.jsonl"), help="file to append to (%(default)s)")
    found.add_argument("--label", help="put into every line: how the server was started")
    found.add_argument("--workload", choices=WORKLOADS, default="dialogue")
    found.add_argument("--audio-seconds", type=float, help="length of the speech, other than the workload's")
    found.add_argument("--reference-seconds", type=float, help="length of a reference, other than the workload's")
    found.add_argument(
        "--voices", choices=_VOICES, nargs="+", default=["known", "new"], help="known to the server, or new"
    )
    found.add_argument("--reference-root", type=Path, help="that of the server, for voices by path")
    found.add_argument("--concurrency", type=int, nargs="+", default=[1, 16], help="clients of a case")
    found.add_argument("--first-frames", type=int, nargs="+", help="of the first event; by default the server's (4)")
    found.add_argument("--rounds", type=int, default=4, help="requests of each client (%(default)s)")
    found.add_argument("--least-requests", type=int, default=16, help="of a case (%(default)s)")
    found.add_argument("--warm-up-seconds", type=float, default=2.0, help="of speech, before the clock (%(default)s)")
    found.add_argument("--seed", type=int, default=0)
    return found


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
