"""The decoding step's kernels on a GPU: first whether they draw what plain torch draws, then how long both take.

    python -m sglang_moss.benchmarks.kernels --out kernels.jsonl

Needs torch and Triton alone, no weights. Times are of one call inside a captured CUDA graph of several calls on
different inputs; the median of many replays. `gb_per_s` is over the bytes that have to move, whatever a method reads.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.nn import functional

from sglang_moss.step import eager as rows
from sglang_moss.step.kernels import step

from .runs.record import record
from .shapes.kernel_checks import checks
from .shapes.kernel_inputs import DEVICE, N_INPUTS, Inputs, Shape, random_weights

_REPLAYS = 30
_PREFILL_ROWS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="*", default=[1, 16, 64, 128])
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float16"])
    parser.add_argument("--out", type=Path, default=Path("kernels.jsonl"))
    args = parser.parse_args()
    record(args.out, measure(Shape(), [getattr(torch, name) for name in args.dtypes], args.requests))


@torch.no_grad()
def measure(shape: Shape, dtypes: list[torch.dtype], n_requests: list[int]) -> Iterator[dict[str, Any]]:
    for dtype in dtypes:
        weights = random_weights(shape, dtype)
        for n in n_requests:
            inputs = Inputs(shape, dtype, n, weights)
            case = {"dtype": str(dtype).removeprefix("torch."), "requests": n}
            yield from ({**case, **line} for line in checks(inputs, dtype))
            yield from ({**case, **line} for line in times(inputs))
        yield {"dtype": str(dtype).removeprefix("torch."), **time_prefill(shape, weights)}


def times(inputs: Inputs) -> Iterator[dict[str, Any]]:
    shape, n = inputs.shape, inputs.n
    size = inputs.hidden[0].element_size()
    row_bytes = size * shape.hidden_size
    audio, before = (inputs.state(in_audio, mixed=False) for in_audio in (True, False))
    code_bytes = n * shape.n_vq * (shape.n_codes * size + shape.n_codes + 16)
    begin_bytes = n * (shape.n_vq + 2) * row_bytes
    yield _line("begin_step", begin_bytes, lambda functions, _i: inputs.begin(functions, audio), n)
    audio_bytes = code_bytes + n * row_bytes + 2 * row_bytes
    yield _line("finish_step in audio", audio_bytes, lambda functions, i: inputs.finish(functions, audio, i), n)
    text_bytes = n * row_bytes + shape.vocab_size * (row_bytes + 2 * n * size)
    yield _line("finish_step before audio", text_bytes, lambda functions, i: inputs.finish(functions, before, i), n)
    head = inputs.weights["code_head"]
    seconds = graph_seconds(lambda i: functional.linear(inputs.hidden[i], head))
    yield {"time": "audio heads (GEMM)", "us": 1e6 * seconds, "gb_per_s": head.numel() * size / seconds / 1e9}


def time_prefill(shape: Shape, weights: dict[str, Tensor]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(shape.n_codes, (_PREFILL_ROWS, 1 + shape.n_vq), generator=generator).to(DEVICE)
    row_bytes = weights["text_table"].element_size() * shape.hidden_size

    def embed(functions: ModuleType, _i: int) -> Tensor:
        return functions.embed_rows(prompt[:, 0], prompt[:, 1:], weights["text_table"], weights["code_table"])

    return _line("embed_rows", _PREFILL_ROWS * (shape.n_vq + 2) * row_bytes, embed, _PREFILL_ROWS)


def _line(name: str, n_bytes: int, call: Callable[[ModuleType, int], Tensor], n: int) -> dict[str, Any]:
    ours, plain = (graph_seconds(lambda i, f=functions: call(f, i)) for functions in (step, rows))
    return {
        "time": name,
        "rows": n,
        "us": 1e6 * ours,
        "torch_us": 1e6 * plain,
        "gb_per_s": n_bytes / ours / 1e9,
        "launches": launches(lambda: call(step, 0)),
        "torch_launches": launches(lambda: call(rows, 0)),
    }


def graph_seconds(call: Callable[[int], Tensor], n_inputs: int = N_INPUTS) -> float:
    """Seconds of one call within a graph of one call for each input; the median of many replays."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what compiles or allocates must have done so before the capture
        call(0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(n_inputs):
            call(i)
    graph.replay()
    spans = []
    for _ in range(_REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in spans) / 1e3 / n_inputs


def launches(call: Callable[[], Tensor]) -> int:
    """Kernels and copies that one call starts."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in profile.events() or ())


if __name__ == "__main__":
    main()
