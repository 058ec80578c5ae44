"""Speed of fine-tuning: rows a second, share of the card's arithmetic, memory, and waiting for data.

Random weights of the real shapes are made on the card; dialogues are invented (`dialogues`), 30 s in the median: of 4
to 180 s (`--lengths mixed`), or of up to ten minutes (`long`). Each mode trains the same model on the same dialogues:

    packed     as `moss-ttsd finetune` does, waiting for its own data
    padded     the same loop, but each micro-batch is whole examples, padded to the longest of them, as many as fit into
               the rows of a pack
    batched    the same, but as many examples in each micro-batch, which has the rows of a pack in the mean
    upstream   upstream's loop at its defaults (`upstream_training`): one example a step

On one card (the tests' golden data must lie in `tests/golden`; LoRA needs peft, and peft needs accelerate):

    python3 -m sglang_moss.benchmarks.training --case lora-8b --modes packed padded --out training.jsonl
    python3 -m sglang_moss.benchmarks.training --case lora-8b --compile --saved-share 0.6 --out training.jsonl
    python3 -m sglang_moss.benchmarks.training --case full-1.7b --modes packed padded batched upstream
    python3 -m sglang_moss.benchmarks.training --case full-1.7b --compile

Two cards, against one of them with as many packs a card:

    python3 -m sglang_moss.benchmarks.training --case full-8b --layers 6 --out training.jsonl
    two="torchrun --nproc-per-node 2 -m sglang_moss.benchmarks.training --per-step 8 --out training.jsonl"
    $two --case full-8b --layers 6
    $two --case full-1.7b --exchange step
    $two --case full-1.7b --parallel replicated
    $two --case lora-8b

`--profile` tells where a step's time goes; `--attention fa4` tries another backend. `python3 -m
sglang_moss.benchmarks.training_table training.jsonl` shows what was measured. Without a GPU `--case tiny` runs all of
it in a minute, and measures nothing.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..training.building import build
from ..training.config import TrainConfig
from ..training.config_file import config_of
from ..training.distributed import World, processes
from ..training.flops import model_parameters, step_flops
from ..training.loading import Packs
from ..training.loop import Loop
from ..training.memory import device_memory, is_sharded, settle_exchange
from ..training.model import ModelShape
from ..training.run_plan import RunPlan, plan_run
from .runs.golden import add_golden_argument
from .runs.record import record
from .steps.device_work import draw, empty_cache, matmul_tflops
from .steps.dialogues import LENGTHS, Dialogues, Lengths
from .steps.padded_batches import BatchedPlanner, PaddedDataset, PaddedPlanner
from .steps.timed_steps import DATASHEET_TFLOPS, timed_steps
from .steps.training_shapes import CASES, write_shape
from .steps.upstream_training import upstream_steps

_PADDED = {"padded": PaddedPlanner, "batched": BatchedPlanner}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--modes", nargs="+", choices=("packed", *_PADDED, "upstream"), default=["packed"])
    parser.add_argument("--layers", type=int, help="fewer of them, where the whole does not fit")
    parser.add_argument("--pack-rows", type=int, default=16_384)
    parser.add_argument("--per-step", type=int, default=4, help="packs of an optimizer step, over all cards")
    parser.add_argument("--steps", type=int, default=6, help="that are measured")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--dialogues", type=int, default=2000)
    parser.add_argument("--lengths", default="mixed", choices=LENGTHS, help="of the dialogues")
    parser.add_argument("--exchange", default="auto", choices=("auto", "step", "pack"))
    parser.add_argument("--parallel", default="auto", choices=("auto", "replicated"))
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--checkpointing", default="selective", choices=("none", "selective", "full"))
    parser.add_argument("--saved-share", type=float, default=0.5)
    parser.add_argument("--chunk-rows", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    add_golden_argument(parser)
    parser.add_argument("--out", type=Path, default=Path("training.jsonl"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, processes("auto") as world:
        lines = _measured(args, Path(folder), world)
        if world.leads:
            record(args.out, lines)
        else:
            list(lines)


def _measured(args: argparse.Namespace, folder: Path, world: World) -> Iterator[dict[str, Any]]:
    case = CASES[args.case]
    write_shape(folder / "model", args.golden, case, args.layers)
    config = _config(args, folder, case.method)
    shape = ModelShape.from_dict(json.loads((folder / "model" / "config.json").read_text()))
    n_bytes = 2 if world.device.type == "cuda" else 4
    config = settle_exchange(config, shape, world.size, n_bytes, device_memory(world.device))
    plan = plan_run(config, _invented(args, shape, config))
    common = {
        "case": args.case,
        "parameters": model_parameters(plan.shape),
        "layers": plan.shape.backbone.num_hidden_layers,
        "n_gpus": world.size,
        "pack_rows": config.packing.rows,
        "per_step": args.per_step,
        "lengths": args.lengths,
        "parallel": args.parallel,
        "exchange": config.compute.exchange if is_sharded(config, world.size) else None,
        "attention": args.attention,
        "checkpointing": args.checkpointing,
        "saved_share": args.saved_share,
        "compile": args.compile,
        "matmul_tflops": (peak := matmul_tflops(world.device)),
    }
    for line in _lines(args, plan, world):
        share = line["tflops_per_gpu"] / peak if peak and "tflops_per_gpu" in line else None
        yield {**common, **line, "of_matmul": share}


def _lines(args: argparse.Namespace, plan: RunPlan, world: World) -> Iterator[dict[str, Any]]:
    ours = [mode for mode in args.modes if mode != "upstream"]
    try:
        if ours:
            yield from _ours(args, plan, ours, world)
        if "upstream" in args.modes and world.leads:
            empty_cache(world)
            yield {"checkpointing": "none", "compile": False, **_upstream(args, plan, world)}
    except torch.OutOfMemoryError as error:
        yield {"error": f"out of memory: {str(error).splitlines()[0]}"}


def _config(args: argparse.Namespace, folder: Path, method: str) -> TrainConfig:
    is_small = args.case.startswith("tiny")
    return config_of(
        {
            "model": str(folder / "model"),
            "dataset": "invented",
            "output": str(folder / "run"),
            "method": method,
            "steps": 10**6,
            "tensorboard": False,
            "packing": {"rows": 2048 if is_small else args.pack_rows, "per_step": args.per_step},
            "loss": {"chunk_rows": args.chunk_rows},
            "compute": {
                "exchange": args.exchange,
                "parallel": args.parallel,
                "attention": args.attention,
                "checkpointing": args.checkpointing,
                "saved_share": args.saved_share,
                "compile": args.compile,
            },
            "data": {"workers": args.workers},
        }
    )


def _invented(args: argparse.Namespace, shape: ModelShape, config: TrainConfig) -> Dialogues:
    from transformers import Qwen2Tokenizer

    lengths = Lengths(longest_s=10.0, median_s=2.0) if config.packing.rows < 4096 else LENGTHS[args.lengths]
    return Dialogues(args.dialogues, Qwen2Tokenizer.from_pretrained(config.model), shape.tokens, lengths)


def _ours(args: argparse.Namespace, plan: RunPlan, modes: list[str], world: World) -> Iterator[dict[str, Any]]:
    model, trained = build(plan.config, world, None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" not in name:
                draw(parameter)
        for name, tensor in trained.tensors.items():
            if ".lora_" not in name:
                draw(tensor)
    trained.publish()
    for mode in modes:
        own = plan
        dataset = plan.packs_of(plan.training)
        if mode in _PADDED:
            own = replace(plan, planner=_PADDED[mode](plan.lengths, plan.planner.pack_rows, args.per_step, seed=42))
            dataset = PaddedDataset(**vars_of(dataset))
        loop = Loop(own, model, trained, world)
        packs = Packs(dataset, loop.orders(0), world.device, args.workers, n_ahead=4)
        counts = {"n_warmup": args.warmup, "n_steps": args.steps}
        yield {"mode": mode, **timed_steps(loop, packs, world, **counts, profiles=args.profile)}
        del packs, loop
        empty_cache(world)


def vars_of(dataset: Any) -> dict[str, Any]:
    """Arguments that make another dataset of packs alike."""
    return {name: value for name, value in vars(dataset).items() if not name.startswith("_")}


def _upstream(args: argparse.Namespace, plan: RunPlan, world: World) -> dict[str, Any]:
    dataset = plan.packs_of(plan.training)
    n_warmup, n_steps = 3, 10 * args.steps
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    examples = (dataset.rows_of(i % len(plan.training)) for i in itertools.count())
    seconds = list(itertools.islice(upstream_steps(plan.shape, examples, world.device, n_warmup), n_steps))
    sizes = [plan.size_of([((n_warmup + i) % len(plan.training),)]) for i in range(n_steps)]
    wall_s = sum(seconds)
    tflops = sum(step_flops(plan.shape, size, frozen=False) for size in sizes) / wall_s / 1e12
    return {
        "mode": "upstream",
        "rows_per_s": (rate := sum(size.rows for size in sizes) / wall_s),
        "rows_per_s_per_gpu": rate,
        "steps": n_steps,
        "wall_s": wall_s,
        "tflops_per_gpu": tflops,
        "mfu": tflops / DATASHEET_TFLOPS,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if world.device.type == "cuda" else None,
    }


if __name__ == "__main__":
    main()
