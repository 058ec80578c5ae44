"""In which precision the quality gates have a checkpoint served, and on what."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

_GPU = ("--dtype", "bfloat16")
_FP8 = (*_GPU, "--codec-dtype", "float16", "--quantization", "fp8")
_FP8_CACHE = ("--kv-cache-dtype", "fp8_e4m3")
_FUSED = ("--decoding-layers", "fused")


@dataclass(frozen=True)
class Variant:
    """A way to serve.

    Attributes:
        server_args: of `sglang serve`.
        on_cpu: without a GPU, and held to as many cores as are asked for. There a stream has the codes of the whole
            answer; on a GPU it has them up to near-ties, since what else runs changes how kernels round.
        env: of the server.
    """

    name: str
    server_args: tuple[str, ...]
    on_cpu: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("cpu", ("--dtype", "float32"), on_cpu=True, env={"CUDA_VISIBLE_DEVICES": ""}),
        Variant("bf16", (*_GPU, "--codec-dtype", "float32")),
        Variant("fp16", ("--dtype", "float16", "--codec-dtype", "float32")),
        Variant("fp16-codec", (*_GPU, "--codec-dtype", "float16")),
        Variant("fp8", _FP8),
        Variant("fp8-kv8", (*_FP8, *_FP8_CACHE)),
        Variant("bf16-fused", (*_GPU, "--codec-dtype", "float32", *_FUSED)),
        Variant("fp8-kv8-fused", (*_FP8, *_FP8_CACHE, *_FUSED)),
    )
}


@contextmanager
def on_cores(n: int | None) -> Iterator[None]:
    """What is started in this block runs on so many of this process's cores; None: on all."""
    before = os.sched_getaffinity(0)
    if n is not None:
        os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
