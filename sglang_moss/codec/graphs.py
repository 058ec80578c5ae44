"""CUDA graphs of steps: one a shape, in memory that they share and keep."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from sglang_moss.codec.step_shapes import Shape

# CUDA's lowest priority is 0, the decoder's: what it has made is ahead of playback. Less is higher.
ABOVE_THE_DECODER = -1


def capture_steps(
    step: Callable[[Shape], None], shapes: Sequence[Shape], stream: torch.cuda.Stream
) -> dict[Shape, torch.cuda.CUDAGraph]:
    """Graphs of all shapes; they never run at a time, so they share one pool of memory, the largest's.

    Args:
        step: works on tensors that stay where they are, and looks at no value of theirs.
        shapes: the largest first.
        stream: on which the graphs are to run.
    """
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    pool = torch.cuda.graph_pool_handle()
    graphs = {}
    with torch.cuda.stream(stream), _whole_sums():
        for shape in shapes:
            step(shape)  # compiles kernels and lets libraries prepare, which a capture must not contain
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")  # other threads may use the GPU
            try:
                step(shape)
            finally:
                graph.capture_end()
            graphs[shape] = graph
        stream.synchronize()
    torch.cuda.empty_cache()  # what warming up has left on this stream is of no use to others
    return graphs


@contextmanager
def _whole_sums() -> Iterator[None]:
    """Let no matrix product of half operands add partial sums in half: it is allowed by default."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction = before
