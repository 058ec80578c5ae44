"""Work on a device that benchmarks of training need: waiting for it, random weights, what it can do, its profile."""

import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..training.distributed import World

_STD = 0.02


def wait(world: World) -> None:
    """Until this device, and every other rank, has done what was queued."""
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    world.barrier()


def empty_cache(world: World) -> None:
    """Give memory back that nothing holds."""
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()


def draw(tensor: Tensor) -> None:
    """Random weights of ordinary size, in place; ones for a norm."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    if tensor.dim() == 1:
        own.fill_(1.0)
    else:
        own.normal_(0.0, _STD)


def matmul_tflops(device: torch.device) -> float | None:
    """What a large bf16 product of random matrices reaches; None without a GPU."""
    if device.type != "cuda":
        return None
    size, n = 8192, 20
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(n):
        torch.mm(a, b)
    torch.cuda.synchronize()
    return n * 2 * size**3 / (time.perf_counter() - started) / 1e12


def profile_table(step: Callable[[], object]) -> str:
    """Where the time of a step goes, by kernel."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=80)
