"""Whether two GPUs or more give the gradients of one, however they share the work.

    torchrun --nproc-per-node 2 -m sglang_moss.benchmarks.training_rank_checks --out training_checks.jsonl

The model and the packs of `training_checks`, two packs a rank. In float32 the sum over ranks must agree with one rank's
within 1e-5 of its norm; in bfloat16 within that and four times what the one rank's own differs by when it is computed
again. Exit status 1: it does not.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from ..training.building import build, read_model_config
from ..training.config import TrainConfig
from ..training.config_file import config_of
from ..training.distributed import World, processes
from ..training.model import ModelShape, SpeechModel
from .runs.golden import add_golden_argument
from .runs.record import record
from .steps.training_shapes import TrainingCase, write_shape
from .training_checks import SMALL, distance_of, small_pack

_PACKS = 2  # of each rank
_ALLOWED = 1e-5
_WAYS = (
    {"method": "full", "exchange": "step"},
    {"method": "full", "exchange": "pack"},
    {"method": "full", "parallel": "replicated"},
    {"method": "lora"},
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_golden_argument(parser)
    parser.add_argument("--out", type=Path, default=Path("training_checks.jsonl"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, processes("auto") as world:
        path = Path(folder) / "model"
        write_shape(path, args.golden, TrainingCase("full", SMALL), None)
        _write_weights(path)
        lines = _lines(path, world)
        lines = record(args.out, lines) if world.leads else list(lines)
    return 0 if all(line["agrees"] for line in lines) else 1


def _lines(path: Path, world: World) -> Iterator[dict[str, Any]]:
    for dtype in ("float32", "bfloat16") if world.device.type == "cuda" else ("float32",):
        for way in _WAYS:
            config = _config(path, dtype, **way)
            alone = World(0, 1, world.device)
            exact, again = (_gradient(config, path, alone, world.size) for _ in range(2))
            distance = distance_of(_gradient(config, path, world, world.size), exact)
            allowed = _ALLOWED + (4 * distance_of(again, exact) if dtype == "bfloat16" else 0.0)
            line = {"check": f"{world.size} ranks", **way, "dtype": dtype, "distance": distance, "allowed": allowed}
            yield line | {"agrees": distance <= allowed}


def _config(path: Path, dtype: str, method: str, **compute: str) -> TrainConfig:
    attention = "varlen" if dtype == "bfloat16" else "sdpa"
    return config_of(
        {
            "model": str(path),
            "dataset": "x",
            "output": "x",
            "method": method,
            "lora": {"rank": 8},
            "compute": {"dtype": dtype, "attention": attention, **compute},
        }
    )


def _gradient(config: TrainConfig, path: Path, world: World, n_ranks: int) -> torch.Tensor:
    """Of the packs of `n_ranks` ranks, each of which computes its own; one rank alone computes all of them."""
    model, trained = build(config, world, path)
    if config.method == "lora":  # B begins at zero, and A would have no gradient
        generator = torch.Generator(world.device).manual_seed(2)
        with torch.no_grad():
            for tensor in trained.tensors.values():
                tensor.normal_(0.0, 0.05, generator=generator)
        trained.publish()
    tensors = trained.tensors
    numbers = range(world.rank, _PACKS * n_ranks, world.size)
    for number in numbers:
        trained.micro_step(is_last=number == numbers[-1])
        pack = small_pack(model, number)
        loss, _ = model(replace(pack, scales=pack.scales / (_PACKS * n_ranks)).to(world.device))
        loss.backward()
    trained.reduce()
    gradients = [tensor.grad for tensor in tensors.values() if tensor.grad is not None]
    return torch.cat([(g.full_tensor() if isinstance(g, DTensor) else g).flatten() for g in gradients])


def _write_weights(path: Path) -> None:
    """The same on every rank."""
    with torch.device("meta"):
        model = SpeechModel(ModelShape.from_dict(read_model_config(path)))
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, parameter in model.named_parameters():
        mean = 1.0 if parameter.dim() == 1 else 0.0
        weights[name] = torch.empty(parameter.shape).normal_(mean, 0.05, generator=generator)
    save_file(weights, path / "model.safetensors")


if __name__ == "__main__":
    sys.exit(main())
