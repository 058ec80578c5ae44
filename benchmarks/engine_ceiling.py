"""The engine's own speed: the plain text model underneath, on stock SGLang, under the same load.

    python -m sglang_moss.benchmarks.engine_ceiling fused --workload dialogue --out ceiling.jsonl

Makes a text model of the shape of the fused checkpoint's language model (nothing of its weights is read), starts stock
SGLang with it and drives `/generate` as `serving` does: as many prompt tokens as the workload has rows, as many of them
known to the prefix cache, one new token for every frame, the same sampling, no penalty. What it would be in speech: one
token is one frame. A line has two rates:

- `tokens_per_s`, `audio_s_per_s`: the closed loop over HTTP, prompts included: what `engine_ratio` is held against;
- `decode_tokens_per_s`, `decode_audio_s_per_s`: decoding alone, while all clients are decoding: the median of what
  SGLang logs.

Prompts are token ids and no tokenizer or detokenizer runs (`--skip-tokenizer-init`), since that is the engine's fastest
way. Our plugin is kept out of it where there is a GPU.
"""

import argparse
import functools
import json
import random
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..clients import AsyncMossClient, UnusableAnswer
from ..clients.client import encoded
from ..clients.local_server import SGLANG_SERVE, LocalServer
from .loads import loops
from .loads.ceiling import BENCHMARK
from .loads.loops import Exchange, Load, failures
from .loads.prompt_rows import PromptRows, prompt_rows
from .loads.statistics import mean, percentiles, steady_rate, steady_window
from .loads.workloads import FRAMES_PER_SECOND, WORKLOADS, RequestMaker, share
from .runs.batch_log import batch_lines
from .runs.exiting import exit_on_sigterm
from .runs.record import record
from .shapes.real_shapes import write_plain_checkpoint

_SAMPLING = {"temperature": 1.1, "top_p": 0.9, "top_k": 50, "ignore_eos": True}
_WARM_UP_TOKENS = 25
_LEAST_ID = 100  # ids below are often special
_LOG_INTERVAL = 10  # steps


def main() -> None:
    args = _parser().parse_args()
    workload = WORKLOADS[args.workload]
    workload = replace(workload, seconds=args.audio_seconds or workload.seconds)
    workload = replace(workload, reference_seconds=args.reference_seconds or workload.reference_seconds)
    maker = RequestMaker(workload, args.seed, case=BENCHMARK)
    with plain_server(args, maker) as (server, prompts):
        for spread in args.spread:
            spread_out = replace(maker, workload=replace(workload, spread=spread))
            record(args.out, cases(args, server, prompts, spread_out))


@contextmanager
def plain_server(
    args: argparse.Namespace, maker: RequestMaker, *flags: str
) -> "Iterator[tuple[LocalServer, PlainPrompts]]":
    """Stock SGLang with the plain model of `args.model_path`, and requests to it of the size of `maker`'s."""
    rows = prompt_rows(maker, args.model_path)
    with tempfile.TemporaryDirectory() as folder:
        plain = write_plain_checkpoint(Path(folder) / "plain", args.model_path)
        vocab_size = json.loads((plain / "config.json").read_text())["vocab_size"]
        common = ["--load-format", "dummy", "--skip-tokenizer-init", "--decode-log-interval", str(_LOG_INTERVAL)]
        stock = {"SGLANG_PLUGINS": "none"} if shutil.which("nvidia-smi") else {}  # our platform is for the CPU
        with LocalServer(
            plain,
            extra_args=[*common, *flags, *shlex.split(args.server_args)],
            log=args.log or args.out.with_suffix(".server.log"),
            env=stock,
            start_timeout_s=args.start_timeout,
            command=SGLANG_SERVE,
            delay_pattern=False,
        ) as server:
            yield server, PlainPrompts(rows, vocab_size)


@dataclass(frozen=True)
class PlainReading:
    """One answer: tokens that it generated, and tokens of its prompt that were known."""

    n_new: int
    n_cached: int


@dataclass(frozen=True)
class PlainPrompts:
    """Requests to the plain model that cost its engine what a workload's cost ours."""

    rows: PromptRows
    vocab_size: int

    def body(self, case: str, index: int, n_new: int, is_new: bool = False, stream: bool = False) -> bytes:
        """The encoded body of request `index`, for `n_new` tokens; one that `is_new` shares nothing."""
        shared = self._ids(f"{case}/{index}/voices" if is_new else "shared", self.rows.n_shared)
        own = self._ids(f"{case}/{index}", self.rows.n_rows - self.rows.n_shared)
        body = {"input_ids": shared + own, "sampling_params": {**_SAMPLING, "max_new_tokens": n_new}}
        return encoded(body, stream=stream)

    def _ids(self, seed: str, n: int) -> list[int]:
        ids = random.Random(seed)
        return [ids.randrange(_LEAST_ID, self.vocab_size) for _ in range(n)]


def cases(
    args: argparse.Namespace, server: LocalServer, prompts: PlainPrompts, maker: RequestMaker
) -> Iterator[dict[str, Any]]:
    """A line for each concurrency."""
    for concurrency in args.concurrency:
        n_requests = max(args.rounds * concurrency, args.least_requests)
        log_start = server.log.stat().st_size
        n_new = [maker.frames(i) for i in range(n_requests)]
        name = f"{args.seed}/{maker.workload.spread}/{concurrency}"  # no two cases share a prompt's own part
        exchanges = loops.run(_case(name, server.url, prompts, concurrency, n_new))
        time.sleep(0.2)  # for the log's last lines
        with server.log.open("rb") as log:
            log.seek(log_start)
            decode = decode_rate(log.read().decode(errors="replace").splitlines(), concurrency)
        passed = [exchange for exchange in exchanges if exchange.error is None]
        wall_s = max(e.done_s for e in exchanges) - min(e.sent_s for e in exchanges)
        readings = [exchange.reading for exchange in passed if exchange.reading is not None]
        tokens_per_s = sum(reading.n_new for reading in readings) / wall_s
        window = steady_window(exchanges, concurrency)
        steady = window and steady_rate(passed, [reading.n_new for reading in readings], window)
        yield {
            "benchmark": BENCHMARK,
            "workload": args.workload,
            "spread": maker.workload.spread,
            "concurrency": concurrency,
            "n_requests": len(exchanges),
            "n_failed": len(exchanges) - len(passed),
            "failures": failures(exchanges),
            "prompt_tokens": prompts.rows.n_rows,
            "cached_tokens": mean([reading.n_cached for reading in readings]),
            "new_tokens": mean(n_new),
            "wall_s": wall_s,
            "tokens_per_s": tokens_per_s,
            "audio_s_per_s": tokens_per_s / FRAMES_PER_SECOND,
            "steady_audio_s_per_s": steady and steady / FRAMES_PER_SECOND,
            "decode_tokens_per_s": decode,
            "decode_audio_s_per_s": decode and decode / FRAMES_PER_SECOND,
            **percentiles("latency_s", [e.seconds for e in passed]),
        }


async def _case(
    name: str, url: str, prompts: PlainPrompts, concurrency: int, n_new: Sequence[int]
) -> "list[Exchange[PlainReading]]":
    bodies = [prompts.body(name, i, n) for i, n in enumerate(n_new)]
    few = [min(_WARM_UP_TOKENS, *n_new)] * (1 + min(concurrency, len(n_new)))
    warm_up = [prompts.body(f"{name}/warm-up", i, n) for i, n in enumerate(few)]
    with ThreadPoolExecutor(1) as reader:  # answers are small
        async with AsyncMossClient(url) as client:
            for part in (warm_up[:1], warm_up[1:]):
                warming = Load(functools.partial(_ask, client, part), functools.partial(read, few), reader)
                await warming.closed_loop(len(part), len(part))
            measured = Load(functools.partial(_ask, client, bodies), functools.partial(read, n_new), reader)
            return await measured.closed_loop(len(bodies), concurrency)


async def _ask(client: AsyncMossClient, bodies: Sequence[bytes], number: int) -> AsyncIterator[bytes]:
    yield await client.answer(bodies[number])


def read(n_new: Sequence[int], number: int, parts: list[bytes]) -> PlainReading:
    """Read the answer to request `number`.

    Raises:
        UnusableAnswer: not as many new tokens as were asked for.
    """
    meta = json.loads(parts[0])["meta_info"]
    if meta["completion_tokens"] != n_new[number]:
        raise UnusableAnswer(f"{meta['completion_tokens']} tokens, expected {n_new[number]}")
    return PlainReading(n_new[number], meta.get("cached_tokens", 0))


def decode_rate(log_lines: Sequence[str], concurrency: int) -> float | None:
    """Median of SGLang's own figures, in tokens/s, of when as many requests ran; None if it logged none."""
    found = [line.facts for line in batch_lines(log_lines) if line.is_decode and "gen throughput" in line.facts]
    # The first figure after a prefill counts the prefill's time too.
    rates = [
        now["gen throughput"]
        for before, now in pairwise(found)
        if before["running-req"] == now["running-req"] == concurrency
    ]
    return statistics.median(rates) if rates else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="dialogue")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64, 128])
    parser.add_argument("--rounds", type=int, default=4, help="requests of each client (%(default)s)")
    parser.add_argument("--least-requests", type=int, default=8, help="of a case (%(default)s)")
    parser.add_argument("--spread", type=share, nargs="+", default=[0.0], help="of lengths, as in `serving`")
    parser.add_argument("--audio-seconds", type=float, help="length of the speech, other than the workload's")
    parser.add_argument("--reference-seconds", type=float, help="length of a reference, other than the workload's")
    parser.add_argument("--seed", type=int, default=0)
    add_server_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("ceiling.jsonl"))
    return parser


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """What the plain server is started with."""
    parser.add_argument("model_path", type=Path, help="a fused checkpoint; its weights may be missing")
    parser.add_argument("--server-args", default="", help="more arguments of `sglang serve`, in one string")
    parser.add_argument("--start-timeout", type=float, default=300.0, help="seconds until the server is ready")
    parser.add_argument("--log", type=Path, help="of the server; by default beside --out")


if __name__ == "__main__":
    exit_on_sigterm()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # the server has been stopped on the way
