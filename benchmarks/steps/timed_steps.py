"""Steps of fine-tuning against the clock: rows, arithmetic, memory and waiting; and how much of it was for examples."""

import sys
import time
from typing import Any

import torch

from ...training.distributed import World
from ...training.flops import StepSize, step_flops
from ...training.loading import Packs
from ...training.loop import Loop
from ...training.memory import estimate
from ...training.metrics import StepMetrics
from ...training.planning import Pack
from ...training.run_plan import RunPlan
from .device_work import profile, wait
from .padded_batches import PaddedPlanner

DATASHEET_TFLOPS = 989.0  # H100 SXM and H200, bf16 without sparsity


def timed_steps(
    loop: Loop, packs: Packs, world: World, *, n_warmup: int, n_steps: int, profiles: bool
) -> dict[str, Any]:
    """Train `n_steps` steps after `n_warmup` others, and one more under the profiler if asked for."""
    metrics = StepMetrics(world.device)
    for _ in range(n_warmup):
        loop.one_step(packs, metrics)
    wait(world)
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = [loop.plan.planner.step(loop.step + i) for i in range(n_steps)]
    waited, started = packs.waited_s, time.perf_counter()
    for _ in range(n_steps):
        loop.one_step(packs, metrics)
    wait(world)
    wall_s = time.perf_counter() - started
    line = metrics.flush() or {}
    if profiles and world.device.type == "cuda":
        try:
            line |= profile(lambda: loop.one_step(packs, metrics))  # every rank takes part in a step
        except RuntimeError as error:  # what was timed stands
            print(f"no profile: {error}", file=sys.stderr)
    frozen = loop.config.method == "lora"
    sizes = [loop.plan.size_of(step) for step in steps]
    computed = [computed_size(loop.plan, step) for step in steps]
    rows = sum(size.rows for size in sizes)
    flops, all_flops = (sum(step_flops(loop.plan.shape, size, frozen=frozen) for size in s) for s in (sizes, computed))
    tflops = flops / wall_s / 1e12 / world.size
    expected = estimate(loop.plan.shape, loop.config, world.size, 2 if world.device.type == "cuda" else 4)
    return {
        "rows_per_s": rows / wall_s,
        "rows_per_s_per_gpu": rows / wall_s / world.size,
        "steps": n_steps,
        "packs": sum(map(len, steps)),
        "wall_s": wall_s,
        "fill": rows / sum(size.rows for size in computed),
        "arithmetic_fill": flops / all_flops,
        "tflops_per_gpu": tflops,
        "mfu": tflops / DATASHEET_TFLOPS,
        "waiting_share": (packs.waited_s - waited) / wall_s,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if world.device.type == "cuda" else None,
        "estimated_memory_gb": expected.total / 1e9,
        **{key: line[key] for key in ("loss", "profiled_s", "kernels_ms", "kernels") if key in line},
    }


def computed_size(plan: RunPlan, packs: list[Pack]) -> StepSize:
    """What is computed for a step: examples, and filler or padding. Rows without a label reach no head."""
    learnt = plan.size_of(packs).learnt_rows
    if isinstance(planner := plan.planner, PaddedPlanner):
        padded = [planner.padded(pack) for pack in packs]
        return StepSize(sum(int(p.sum()) for p in padded), learnt, sum(int((p**2).sum()) for p in padded))
    made = plan.packs_of(plan.training)
    rows = [max(int(plan.lengths[list(pack)].sum()), made.fill_rows) for pack in packs]
    return StepSize(sum(-(-n // made.pad_to) * made.pad_to for n in rows), learnt, plan.size_of(packs).squares)
