"""The layers of a decoding step on a GPU, fused: how long they take.

    python -m sglang_moss.benchmarks.layers --requests 1 64 --out layers.jsonl

Needs SGLang's kernels, no weights and no server: a step's 36 layers of the 8 B model, whose weights are random, and
attention over caches of their own, in one captured graph; the median of many replays. Requests have 800 to 1,099 rows.
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
from sglang_moss.backbone.kernels import step

from .attention import attention_over, random_cache
from .kernels import graph_seconds
from .runs.record import record
from .shapes.made_layers import HIDDEN, N_KV_HEADS, MadeAttention, made_backbone, noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[1, 8, 16, 64, 128])
    parser.add_argument("--weights", nargs="*", choices=["fp8", "bfloat16"], default=["fp8"])
    parser.add_argument("--out", type=Path, default=Path("layers.jsonl"))
    args = parser.parse_args()
    record(args.out, measure(args.weights, args.requests))


@torch.no_grad()
def measure(kinds: Sequence[str], n_requests: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A line for each kind of weights, which the cache has too, and number of requests."""
    for kind in kinds:
        attention = MadeAttention()
        layers = DecodingLayers(made_backbone(kind == "fp8", attention), step)
        for n in n_requests:
            yield {"weights": kind, "requests": n, "time": "layers", "us": 1e6 * _seconds(layers, attention, kind, n)}


def _seconds(layers: DecodingLayers, attention: MadeAttention, kind: str, n: int) -> float:
    cached = random_cache(n, torch.float8_e4m3fn if kind == "fp8" else torch.bfloat16)
    attention.of_layer = attention_over(cached, ours=n * N_KV_HEADS >= LEAST_PROGRAMS)
    pool = SimpleNamespace(get_kv_buffer=lambda number: (cached.keys[number][:, 0], cached.values[number][:, 0]))
    backend: Any = SimpleNamespace(takes_cached_rows=True, token_to_kv_pool=pool)
    embeds, positions = noise(n, HIDDEN), torch.arange(n, device=cached.lengths.device)
    batch = SimpleNamespace(out_cache_loc=positions)
    with forward_context(ForwardContext(backend)):
        # Layers add to what they are given.
        found = graph_seconds(lambda _i: layers(embeds.clone(), positions, batch), 1)
    attention.of_layer = None  # lets the cache go
    return found


if __name__ == "__main__":
    main()
