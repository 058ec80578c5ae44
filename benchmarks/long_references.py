"""What listeners notice while others send the longest references: five new clips of 60 s each, again and again.

    python -m sglang_moss.benchmarks.long_references --concurrency 16 --out long_references.jsonl

Streams as `serving` measures them, with nothing beside them and then with `--senders` clients that each send a request
with new clips as soon as their last one has been answered. Two lines: `beside` is the number of senders. Options are
those of `serving`, except that all of it streams.
"""

import argparse
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np

from ..clients import ClientError, MossClient, Reference, UnusableAnswer
from . import serving
from .loads.statistics import percentiles
from .loads.synthetic_voice import RATE, synthetic_speech, wav_of
from .runs.exiting import exit_on_sigterm, in_one_line
from .runs.record import record

_CLIPS = 5
_CLIP_SECONDS = 60
_SECONDS = 1.0
_JOIN_SECONDS = 120.0


@in_one_line("no line is written")
def main(argv: Sequence[str] | None = None) -> int:
    """Run with `argv` (default: the command line); exit status 1 if a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--senders", type=int, default=2, help="clients that send references (%(default)s)")
    ours, others = parser.parse_known_args(argv)
    args = serving.parser(None).parse_args([*others, "--stream"])
    if len(args.concurrency) != 1 or args.rate:
        parser.error("one --concurrency, and no --rate: what is sent beside it belongs to one case")
    lines = record(args.out, _cases(args, ours.senders), _row)
    return 1 if any(line["n_failed"] or line["references_failed"] for line in lines) else 0


def _cases(args: argparse.Namespace, n_senders: int) -> Iterator[dict[str, Any]]:
    common = {"benchmark": "long_references", "clips": _CLIPS, "clip_seconds": _CLIP_SECONDS}
    nobody = {"beside": 0, "reference_requests": 0, "references_failed": 0, **percentiles("reference_ttfa_ms", [])}
    for line in serving.cases(args):
        yield {**line, **common, **nobody}
    args.seed += 1  # other scripts
    context = multiprocessing.get_context("spawn")
    ending, found = context.Event(), context.Queue()
    senders = [
        context.Process(target=_send, args=(args.url, args.api_key, i, ending, found), daemon=True)
        for i in range(n_senders)
    ]
    for sender in senders:
        sender.start()
    answers = [found.get(timeout=_JOIN_SECONDS)]  # one has come to its end: all of it has begun
    lines = list(serving.cases(args))
    ending.set()
    for sender in senders:
        sender.join(_JOIN_SECONDS)
    answers += [found.get() for _ in range(found.qsize())]
    waits = [wait for wait in answers if wait is not None]
    for line in lines:
        told = {"reference_requests": len(answers), "references_failed": len(answers) - len(waits)}
        yield {**line, **common, "beside": n_senders, **told, **percentiles("reference_ttfa_ms", waits)}


def _send(url: str, api_key: str | None, sender: int, ending: Event, found: Any) -> None:
    """Send requests until it is over; puts the milliseconds to each one's first audio, None for one that failed."""
    speech = synthetic_speech(_CLIP_SECONDS * RATE, sender)
    with MossClient(url, api_key) as client:
        for number in itertools.count():
            if ending.is_set():
                return
            clips = [Reference(wav_of(np.roll(speech, 997 * (_CLIPS * number + i)))) for i in range(_CLIPS)]
            began = time.perf_counter()
            try:
                chunks = client.stream("[S1] One, two.", clips, max_seconds=_SECONDS, exact_length=True)
                if next(chunks, None) is None:
                    raise UnusableAnswer("a stream without a chunk")
                found.put(1e3 * (time.perf_counter() - began))
                for _ in chunks:
                    pass
            except ClientError as error:
                print(f"a request with references failed: {error}", file=sys.stderr)
                found.put(None)


def _row(line: dict[str, Any]) -> str:
    return (
        f"{line['concurrency']} streams beside {line['beside']} senders: gapless {line['gapless_share']:.3f}, longest "
        f"wait {line['longest_wait_ms']:.0f} ms, first audio p50 {line['ttfa_ms_p50']:.0f}, "
        f"p95 {line['ttfa_ms_p95']:.0f} ms; "
        f"{line['reference_requests']} requests with references, {line['references_failed']} failed"
    )


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
