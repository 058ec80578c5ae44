"""KV cache in pages of several rows: golden cases, and the same sampled requests at every page size.

    python -m sglang_moss.benchmarks.page_sizes FUSED --page-sizes 1 16 64 --dtype float16 --out page_sizes.jsonl

The kernels are SGLang's deterministic ones, so that answers at the first page size are what the others must equal, at
first and from the prefix cache, which shares whole pages only.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .parity import equality, greedy, sampled, served
from .reference.golden_cases import GoldenCases
from .reference.rows_engine import RowsAnswer, RowsEngine
from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument
from .runs.record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_path")
    add_golden_argument(parser)
    parser.add_argument("--page-sizes", type=int, nargs="+", default=[1, 16, 64], help="in rows")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--out", type=Path, default=Path("page_sizes.jsonl"))
    args = parser.parse_args()
    record(args.out, measure(args.model_path, GoldenCases(args.golden), args.dtype, args.page_sizes))


def measure(model_path: str, cases: GoldenCases, dtype: str, page_sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    requests = sampled(cases)
    expected: list[RowsAnswer] | None = None
    for page_size in page_sizes:
        case = {"dtype": dtype, "page_size": page_size}
        engine = RowsEngine(model_path, dtype=dtype, page_size=page_size, enable_deterministic_inference=True)
        with engine:
            for line in (*greedy(engine, cases), *served(engine, cases)):
                yield {**case, **line}
            engine.flush_cache()
            found = engine.ask(requests)
            expected = expected or found
            yield {**case, **equality(f"= page size {page_sizes[0]}", expected, found)}
            yield {**case, **equality(f"cached = page size {page_sizes[0]}", expected, engine.ask(requests))}


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
