"""The ceiling of `listeners`: as many listeners as the plain text model on stock SGLang could serve, a token a frame.

    python -m sglang_moss.benchmarks.engine_listeners fused --out listeners.jsonl

The server of `engine_ceiling`, under the load of `listeners`: prompts of the same length, the same share of which is
known, as many tokens as the dialogues have frames. Playback begins with the fourth token, as speech begins with four
frames; there are no rows that flush a delay pattern, no references to encode, and nothing to decode. Tokens come four
at a time, as the front of SGLang would be the limit with one event each.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..clients import AsyncMossClient
from .engine_ceiling import PlainPrompts, add_server_arguments, plain_server
from .listeners import add_load_arguments, has_new_voices, promise_of, row, search, window_of, workload_of
from .listening.listener import Listener
from .listening.load import ListeningLoad
from .listening.promise import Heard
from .loads import loops
from .loads.workloads import FRAMES_PER_SECOND, RequestMaker
from .runs.exiting import exit_on_sigterm
from .runs.host_memory import server_of
from .runs.record import record

_FRAMES_AT_A_TIME = 4
_WARM_UP_TOKENS = 25


@dataclass(frozen=True)
class PlainDialogues:
    """The requests of one load by number, as `listeners.Dialogues`."""

    prompts: PlainPrompts
    maker: RequestMaker
    new_voices: float

    def __call__(self, number: int) -> tuple[bytes, bool]:
        is_new = has_new_voices(self.maker, number, self.new_voices)
        case = f"{self.maker.seed}/{self.maker.case}"
        return self.prompts.body(case, number, self.maker.frames(number), is_new, stream=True), is_new


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    add_load_arguments(parser)
    args = parser.parse_args()
    maker = RequestMaker(workload_of(args), args.seed, stream=True)
    with (
        plain_server(args, maker, "--stream-interval", str(_FRAMES_AT_A_TIME)) as (server, prompts),
        ThreadPoolExecutor(1) as pool,  # bodies are small
    ):
        began = time.perf_counter()
        loops.run(_warm_up(server.url, prompts))
        measure = measure_plain(args, server.url, prompts, maker, pool)
        lines = record(args.out, search(args, measure, server_of(server.url), began, {"plain": True}), row)
    return 0 if lines[-1]["kept"] else 1


async def _warm_up(url: str, prompts: PlainPrompts) -> None:
    """One request, with which the voices become known."""
    async with AsyncMossClient(url) as client:
        async for _event in client.events(prompts.body("warm-up", 0, _WARM_UP_TOKENS, stream=True)):
            pass


def measure_plain(
    args: argparse.Namespace, url: str, prompts: PlainPrompts, maker: RequestMaker, pool: Executor
) -> Callable[[float], Heard]:
    """What puts a load of so many requests a second on the plain server."""

    def measure(rate: float) -> Heard:
        dialogues = PlainDialogues(prompts, replace(maker, case=f"listeners-{rate:g}"), args.new_voices)

        async def run() -> Heard:
            async with AsyncMossClient(url) as client:
                listener = Listener(plain_seconds, args.buffer, start_s=_FRAMES_AT_A_TIME / FRAMES_PER_SECOND)
                streams = ListeningLoad(client.events, dialogues, None, listener, pool)
                return await streams.run(rate, window_of(args), promise_of(args), args.seed)

        return loops.run(run())

    return measure


def plain_seconds(event: bytes) -> float | None:
    """Seconds that the tokens of an answer would be up to an event."""
    answer: Any = json.loads(event)
    n_tokens = answer.get("meta_info", {}).get("completion_tokens")
    return n_tokens / FRAMES_PER_SECOND if n_tokens else None


if __name__ == "__main__":
    exit_on_sigterm()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # the server has been stopped on the way
