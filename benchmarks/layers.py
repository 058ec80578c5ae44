"""The layers of a decoding step on a GPU, fused: how long they take, and what weights that are brought ahead give.

    python -m sglang_moss.benchmarks.layers --prefetch-mb 0 8 16 24 --out layers.jsonl

Needs SGLang's kernels, no weights and no server: a step's 36 layers of the 8 B model, whose weights are random, and
attention over caches of their own, in one captured graph; the median of many replays. Requests have 800 to 1,099 rows.
Before each it is asked whether the step gives the same as without weights brought ahead, bit by bit.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context

from sglang_moss.attention.backend import LEAST_PROGRAMS
from sglang_moss.backbone.decoding import DecodingLayers
from sglang_moss.backbone.kernels import prefetch, step

from .attention import attention_over, random_cache
from .kernels import graph_seconds
from .runs.record import record
from .shapes.made_layers import HIDDEN, N_KV_HEADS, MadeAttention, made_backbone, noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[1, 8, 16, 64, 128])
    parser.add_argument("--weights", nargs="*", choices=["fp8", "bfloat16"], default=["fp8"])
    parser.add_argument("--prefetch-mb", type=int, nargs="*", default=[0, 8, 16, 24, 32])
    parser.add_argument(
        "--program-kb", type=int, default=prefetch.PROGRAM_BYTES >> 10, help="that a program asks for (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("layers.jsonl"))
    args = parser.parse_args()
    prefetch.PROGRAM_BYTES = args.program_kb << 10
    lines = measure(args.weights, args.requests, args.prefetch_mb)
    record(args.out, ({"program_kb": args.program_kb, **line} for line in lines))


@torch.no_grad()
def measure(kinds: Sequence[str], n_requests: Sequence[int], prefetch_mb: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A line for each kind of weights, which the cache has too, number of requests, and MB ahead."""
    for kind in kinds:
        attention = MadeAttention()
        model = made_backbone(kind == "fp8", attention)
        for n in n_requests:
            for line in _of_requests(model, attention, kind, n, prefetch_mb):
                yield {"weights": kind, "requests": n, **line}


def _of_requests(
    model: Any, attention: MadeAttention, kind: str, n: int, prefetch_mb: Sequence[int]
) -> Iterator[dict[str, Any]]:
    cached = random_cache(n, torch.float8_e4m3fn if kind == "fp8" else torch.bfloat16)
    attention.of_layer = attention_over(cached, ours=n * N_KV_HEADS >= LEAST_PROGRAMS)
    pool = SimpleNamespace(get_kv_buffer=lambda number: (cached.keys[number][:, 0], cached.values[number][:, 0]))
    backend: Any = SimpleNamespace(takes_cached_rows=True, token_to_kv_pool=pool)
    embeds, positions = noise(n, HIDDEN), torch.arange(n, device=cached.lengths.device)
    batch = SimpleNamespace(out_cache_loc=positions)
    with forward_context(ForwardContext(backend)):
        # Layers add to what they are given.
        alone = DecodingLayers(model, step)(embeds.clone(), positions, batch)
        for mb in prefetch_mb:
            layers = DecodingLayers(model, step, mb << 20)
            is_same = torch.equal(layers(embeds.clone(), positions, batch), alone)
            seconds = graph_seconds(lambda _i: layers(embeds.clone(), positions, batch), 1)  # noqa: B023
            yield {"time": "layers", "prefetch_mb": mb, "us": 1e6 * seconds, "same_as_without": is_same}
    attention.of_layer = None  # lets the cache go


if __name__ == "__main__":
    main()
