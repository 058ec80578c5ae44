"""Work on a device that benchmarks of training need: waiting for it, random weights, what it can do, its profile."""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...training.distributed import World

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


def profile(step: Callable[[], object], n: int = 15) -> dict[str, Any]:
    """Where the time of a step goes: seconds in all, milliseconds with a kernel at work, and the dearest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    torch.cuda.synchronize()
    with profiler(activities=[ProfilerActivity.CUDA]) as profiled:
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        wall_s = time.perf_counter() - started
    kernels = [event for event in profiled.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    return {
        "profiled_s": wall_s,
        "kernels_ms": sum(event.self_device_time_total for event in kernels) / 1e3,
        "kernels": [
            {"ms": round(event.self_device_time_total / 1e3, 1), "calls": event.count, "name": event.key[:90]}
            for event in kernels[:n]
        ],
    }
