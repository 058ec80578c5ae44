"""Products of a decoding step by fp8 weights on a GPU: SGLang's, and ours in parts, cut in several ways.

    python -m sglang_moss.benchmarks.products --requests 1 16 64 --out products.jsonl

Needs SGLang's kernels, no weights and no server. Times are of the 36 layers of a step of the 8 B model in one captured
graph, each with weights of its own, so that none are found in the L2 cache; the median of many replays. The norm that
adds parts up is timed by itself, with as many parts, and without any. Of each cut it is asked before how far it is from
SGLang's product.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglang_moss.backbone import operations
from sglang_moss.backbone.cut import Cut
from sglang_moss.backbone.kernels.product import multiply
from sglang_moss.backbone.kernels.quantized import norm_quantized
from sglang_moss.backbone.operations import Quantized

from .kernels import graph_seconds
from .runs.record import record
from .shapes.made_layers import HIDDEN, N_LAYERS, SIZES, noise

_EPS = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[1, 16, 64, 128])
    parser.add_argument("--products", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--columns", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--depth", type=int, nargs="*", default=[128, 256])
    parser.add_argument("--parts", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--stages", type=int, nargs="*", default=[3, 4, 6])
    parser.add_argument("--out", type=Path, default=Path("products.jsonl"))
    args = parser.parse_args()
    cuts = [Cut(*each) for each in product(args.columns, args.depth, args.parts, args.stages)]
    record(args.out, measure(args.products, args.requests, cuts))


@torch.no_grad()
def measure(names: Sequence[str], n_requests: Sequence[int], cuts: Sequence[Cut]) -> Iterator[dict[str, Any]]:
    """Lines of each product and number of requests: SGLang's time, and that of every cut that fits it."""
    for n in n_requests:
        for n_parts in (1, *sorted({cut.parts for cut in cuts if cut.parts > 1})):
            yield {"time": "norm", "requests": n, "parts": n_parts, "us": 1e6 * _norm_seconds(n, n_parts)}
    for name in names:
        n_columns, size = SIZES[name]
        weights = [operations.quantize(noise(n_columns, size)) for _ in range(N_LAYERS)]
        for n in n_requests:
            yield from _of_product(name, operations.quantize(noise(n, size)), weights, cuts)


def _of_product(name: str, rows: Quantized, weights: list[Quantized], cuts: Sequence[Cut]) -> Iterator[dict[str, Any]]:
    from sglang.kernels.ops.gemm import fp8_scaled_mm

    def stock(i: int) -> Tensor:
        return fp8_scaled_mm(rows.rows, weights[i].rows.t(), rows.scales, weights[i].scales, out_dtype=rows.dtype)

    case = {"product": name, "requests": len(rows.rows)}
    yield {"time": "sglang", **case, "us": 1e6 * N_LAYERS * graph_seconds(stock, N_LAYERS)}
    n_columns, size = SIZES[name]
    for cut in cuts:
        if not cut.fits(n_columns, size):
            continue

        def ours(i: int, cut: Cut = cut) -> Tensor:
            return multiply(rows, weights[i].rows.t(), weights[i].scales, cut)

        try:
            seconds = N_LAYERS * graph_seconds(ours, N_LAYERS)
        except Exception as error:  # Triton has several for what does not fit a multiprocessor
            yield {"check": "does not fit", **case, **cut._asdict(), "error": type(error).__name__}
            continue
        expected = stock(0).float()
        apart = (operations.added_up(ours(0), rows.dtype).float() - expected).abs().max() / expected.abs().max()
        yield {"time": "ours", **case, **cut._asdict(), "us": 1e6 * seconds, "difference": apart.item()}


def _norm_seconds(n: int, n_parts: int) -> float:
    """Of the 72 norms of a step but one, which add to a residual."""
    x = noise(n_parts, n, HIDDEN).float() if n_parts > 1 else noise(n, HIDDEN)
    residual, weight = noise(n, HIDDEN), noise(HIDDEN)
    n_norms = 2 * N_LAYERS - 1
    return n_norms * graph_seconds(lambda _i: norm_quantized(x, residual, weight, _EPS).rows, n_norms)


if __name__ == "__main__":
    main()
