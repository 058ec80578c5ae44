"""Speed of a running server, with the audio of every answer checked: `moss-ttsd bench`.

    moss-ttsd bench --workload dialogue --concurrency 1 16 64 128 --out serving.jsonl
    moss-ttsd bench --workload short --rate 2 4 8 --stream --out serving.jsonl

One line a case; `load_statistics` says what the figures mean. Lengths are forced, so that random weights will do;
`--free-length` lets the model end by itself. Sampling is the server's default, the recommended one. Every request has
a script of its own; voices are the same for all, and known to the server before the clock starts.

`moss-ttsd bench --listeners --help`: how many listeners a server serves without a gap.
"""

import argparse
import functools
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from ..clients import AsyncMossClient, ClientError, Reference
from ..clients.connection import DEFAULT_TIMEOUT_S, DEFAULT_URL, connection
from .loads import loops
from .loads.ceiling import engine_ratios
from .loads.loops import Exchange, Load
from .loads.ranks import over_one_card, ranks_of
from .loads.speech_reading import SpeechReader, SpeechReading
from .loads.statistics import failure, summary
from .loads.workloads import FAMILY_WORKLOADS, WORKLOADS, RequestMaker, share
from .runs.exiting import exit_on_sigterm, in_one_line
from .runs.gpu_memory import GpuWatch
from .runs.host_memory import resident_mib, server_of
from .runs.record import read_lines, record

ADMIN_KEY_VARIABLE = "MOSS_ADMIN_API_KEY"
_BENCHMARK = "serving"
_MAX_WORKERS = 4


@in_one_line("lines of the cases before are written")
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if a request failed."""
    args = parser(prog).parse_args(argv)
    if args.reference_text and len(args.reference_text) != len(args.reference or ()):
        raise SystemExit("error: every --reference needs its --reference-text, or none has one")
    flush_cache(args)
    lines = record(args.out, cases(args), _Table().row)
    return 1 if any(line["n_failed"] for line in lines) else 0


def cases(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run every case; a line each.

    Raises:
        ClientError: a request failed already while the server was warmed up.
    """
    ceiling = read_lines(args.ceiling) if args.ceiling else []
    one_card = read_lines(args.one_card) if args.one_card and args.one_card.exists() else []
    with _admin_client(args) as client:
        ranks = ranks_of(client, args.n_servers)
    maker = _request_maker(args)
    server = server_of(args.url)
    # Not forked: this process has threads by then.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(_MAX_WORKERS, os.cpu_count() or 1), mp_context=context) as pool:
        for rate in args.rate or [None]:
            for concurrency in [None] if rate else args.concurrency:
                case = f"{'stream' if args.stream else 'whole'}-{f'rate{rate:g}' if rate else concurrency}"
                run = _case(args, replace(maker, case=case), pool, concurrency, rate)
                with GpuWatch() as gpu:
                    exchanges = loops.run(run)
                line = {
                    "benchmark": _BENCHMARK,
                    **({"label": args.label} if args.label else {}),
                    "workload": maker.workload.name,
                    "audio_seconds": maker.workload.seconds,
                    "spread": maker.workload.spread,
                    "concurrency": concurrency,
                    "rate": rate,
                    "stream": args.stream,
                    "uncached_references": args.uncached_references,
                    "first_frames": args.first_frames,
                    **summary(exchanges, concurrency, args.stream),
                    "gpu_memory_mib": gpu.peak_mib,
                    "host_memory_mib": resident_mib(server),
                    **ranks,
                }
                yield {**line, **engine_ratios(line, ceiling), **over_one_card(line, one_card)}


class _Table:
    """Lines as people read them; the file has all of their figures."""

    _COLUMNS = (
        ("requests", "n_requests", "d"),
        ("failed", "n_failed", "d"),
        ("requests/s", "requests_per_s", ".2f"),
        ("x real time", "audio_s_per_s", ".1f"),
        ("TTFA ms p50", "ttfa_ms_p50", ".0f"),
        ("p95", "ttfa_ms_p95", ".0f"),
        ("latency s p50", "latency_s_p50", ".2f"),
        ("p95", "latency_s_p95", ".2f"),
    )

    def __init__(self) -> None:
        self._has_head = False

    def row(self, line: dict[str, Any]) -> str:
        """One case, below the names of the columns if it is the first."""
        load = f"{line['rate']:g}/s" if line["rate"] else f"{line['concurrency']} clients"
        figures = [(title, line.get(name), form) for title, name, form in self._COLUMNS]
        cells = [f"{format(value, form) if value is not None else '-':>{max(6, len(t))}}" for t, value, form in figures]
        row = "  ".join([f"{load:<12}", *cells])
        if self._has_head:
            return row
        self._has_head = True
        return "  ".join([f"{'load':<12}", *(f"{t:>{max(6, len(t))}}" for t, _, _ in self._COLUMNS)]) + "\n" + row


async def _case(
    args: argparse.Namespace, maker: RequestMaker, pool: Executor, concurrency: int | None, rate: float | None
) -> list[Exchange[SpeechReading]]:
    n_requests = args.requests or _n_requests(args, concurrency, rate)
    bodies = [maker.body(i) for i in range(n_requests)]
    n_warm_up = min(concurrency or _MAX_WORKERS, n_requests)
    warm_up = [maker.warm_up_body(i, min(args.warm_up_seconds, maker.workload.seconds)) for i in range(1 + n_warm_up)]
    frames = None if args.free_length else [maker.frames(i) for i in range(n_requests)]
    read = SpeechReader(args.stream, frames, args.allow_silence)
    async with AsyncMossClient(args.url, args.api_key, args.timeout) as client:
        ask = functools.partial(_ask, client, args.stream)
        # The first one alone makes the voices known; the others then find them, and warm the batch up.
        for part in (warm_up[:1], warm_up[1:]):
            warming = Load(_numbered(ask, part), replace(read, expected_frames=None, allow_silence=True), pool)
            for exchange in await warming.closed_loop(len(part), len(part)):
                if problem := failure(exchange):
                    raise ClientError(f"while warming up: {problem}")
        measured = Load(_numbered(ask, bodies), read, pool, args.time_limit)
        if concurrency is not None:
            return await measured.closed_loop(n_requests, concurrency)
        assert rate is not None
        return await measured.poisson(n_requests, rate, args.seed)


async def _ask(client: AsyncMossClient, stream: bool, body: bytes) -> AsyncIterator[bytes]:
    if not stream:
        yield await client.answer(body)
        return
    async for event in client.events(body):
        yield event


def _numbered(ask: Callable[[bytes], AsyncIterator[bytes]], bodies: Sequence[bytes]) -> loops.Ask:
    return lambda number: ask(bodies[number])


def _n_requests(args: argparse.Namespace, concurrency: int | None, rate: float | None) -> int:
    if concurrency is not None:
        return max(args.rounds * concurrency, args.least_requests)
    assert rate is not None
    return max(round(rate * args.duration), args.least_requests)


def _request_maker(args: argparse.Namespace) -> RequestMaker:
    workload = (WORKLOADS | FAMILY_WORKLOADS)[args.workload]
    workload = replace(
        workload,
        seconds=args.audio_seconds or workload.seconds,
        reference_seconds=args.reference_seconds or workload.reference_seconds,
        spread=args.spread,
    )
    texts = args.reference_text or [None] * len(args.reference or ())
    references = [Reference(*pair) for pair in zip(args.reference, texts, strict=True)] if args.reference else None
    return RequestMaker(
        workload,
        seed=args.seed,
        references=references,
        mode=args.mode,
        stream=args.stream,
        same_script=args.same_script,
        uncached_references=args.uncached_references,
        free_length=args.free_length,
        first_frames=args.first_frames,
    )


def flush_cache(args: argparse.Namespace) -> None:
    """Drop prompts of earlier runs: the same seed makes the same scripts again."""
    try:
        with _admin_client(args) as client:
            flushed = client.post("/flush_cache").is_success
    except httpx.RequestError:
        return  # the warm-up will say why
    if not flushed:
        print(
            "the server did not flush its prefix cache, which takes its --admin-api-key; it may know earlier scripts",
            file=sys.stderr,
        )


def _admin_client(args: argparse.Namespace) -> httpx.Client:
    return httpx.Client(**connection(args.url, args.admin_api_key or args.api_key, DEFAULT_TIMEOUT_S))


def add_connection_arguments(found: argparse.ArgumentParser) -> None:
    """Which server is measured, and its keys."""
    found.add_argument("--url", default=os.environ.get("MOSS_URL", DEFAULT_URL), help="of the server (%(default)s)")
    found.add_argument("--api-key", default=os.environ.get("MOSS_API_KEY"), help="key that the server asks for")
    found.add_argument(
        "--admin-api-key",
        default=os.environ.get(ADMIN_KEY_VARIABLE),
        help="key that lets the prefix cache be flushed, and the server tell of itself",
    )
    found.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, help="seconds to wait for an answer")


def parser(prog: str | None) -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_connection_arguments(found)
    found.add_argument("--out", type=Path, default=Path("serving.jsonl"), help="file to append to (%(default)s)")
    found.add_argument("--ceiling", type=Path, help="lines of `engine_ceiling`, for the ratio")
    found.add_argument("--one-card", type=Path, help="lines of this program on one card, for the ratio")
    found.add_argument("--n-servers", type=int, default=1, help="servers behind the address (%(default)s)")
    found.add_argument("--label", help="put into every line: how the server was started")

    what = found.add_argument_group("requests")
    what.add_argument("--workload", choices=[*WORKLOADS, *FAMILY_WORKLOADS], default="dialogue")
    what.add_argument("--spread", type=share, default=0.0, help="0.5: lengths from half to one and a half of it")
    what.add_argument("--stream", action="store_true", help="streaming answers")
    what.add_argument("--first-frames", type=int, help="of a stream's first event; by default the server's (4)")
    what.add_argument("--seed", type=int, default=0)
    what.add_argument("--audio-seconds", type=float, help="length of the speech, other than the workload's")
    what.add_argument("--free-length", action="store_true", help="let the model end by itself: for trained weights")
    what.add_argument("--same-script", action="store_true", help="one script for all requests")
    what.add_argument("--uncached-references", action="store_true", help="new clips for every request")
    what.add_argument("--reference", action="append", help="clip of a speaker, instead of made-up ones; repeat it")
    what.add_argument("--reference-text", action="append", help="what is said in it; one for every --reference")
    what.add_argument("--reference-seconds", type=float, help="length of made-up clips, other than the workload's")
    what.add_argument("--mode", help="how references are used; by default cloned, and continued if transcribed")
    what.add_argument("--allow-silence", action="store_true", help="count silent answers only; for dummy weights")

    when = found.add_argument_group("load")
    when.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128], help="closed loop: clients")
    when.add_argument("--rate", type=float, nargs="+", help="open loop instead: requests a second, Poisson arrivals")
    when.add_argument("--rounds", type=int, default=4, help="closed loop: requests of each client (%(default)s)")
    when.add_argument("--duration", type=float, default=60.0, help="open loop: seconds of arrivals (%(default)s)")
    when.add_argument("--least-requests", type=int, default=8, help="of a case (%(default)s)")
    when.add_argument("--requests", type=int, help="of a case, exactly")
    when.add_argument("--warm-up-seconds", type=float, default=2.0, help="of speech, before the clock (%(default)s)")
    when.add_argument("--time-limit", type=float, default=float("inf"), help="seconds of a case to send requests in")
    return found


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
