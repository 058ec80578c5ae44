"""What a run leaves: a checkpoint in the layout of its base, tensor by tensor, or adapters alone.

Names, shards, dtypes and every other file are those of the base; `training.json` says what was done. A published base
gives what `sglang_moss.fuse` takes, a fused one what `sglang serve` takes. A trained tensor is rounded once, from
float32 to the dtype of the base; the others are copied byte for byte.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..fuse.checkpoint import INDEX_NAME, read_weights
from ..fuse.directories import input_directory, output_directory
from ..fuse.errors import FuseError
from ..fuse.evidence import TRAINING_REPORT, find_evidence
from ..fuse.json_file import read_json
from ..fuse.staging import Interruption, staged_directory
from .config import LoraConfig, TrainConfig
from .distributed import World
from .errors import TrainingError
from .lora import Adapters, LoraChanges, changes_of, save_adapters
from .weights import published_name

REPORT_NAME = TRAINING_REPORT
MODEL_NAME = "model"  # in the output of a run
_METADATA = {"format": "pt"}

Change = Callable[[str, Tensor], Tensor]  # published name and the base's tensor to the new one, float32


def export(
    base: Path, output: Path, config: TrainConfig, tensors: Mapping[str, Tensor], report: dict[str, Any], world: World
) -> None:
    """Write what was trained; every rank calls this, rank 0 writes.

    Args:
        base: the checkpoint that the run started from.
        output: directory to make; replaced where it exists.
        config: of the run.
        tensors: trained weights by the model's names, float32, sharded or not.
        report: for `training.json`.
        world: of the run.
    Raises:
        TrainingError: the base has changed meanwhile.
    """
    if config.method == "lora":
        if world.leads:
            whole = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
            changes = changes_of(whole, config.lora)
            write_checkpoint(base, output, changes.names(), changes.apply, report)
        world.barrier()
        return

    def trained(name: str, _base: Tensor) -> Tensor:
        tensor = tensors[name].detach()
        return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()

    if world.leads:
        write_checkpoint(base, output, set(tensors), trained, report)
    else:  # a tensor is gathered by all ranks, in the order in which rank 0 writes
        for _path, names in _files(base):
            for name in names:
                if published_name(name) in tensors:
                    trained(published_name(name), torch.empty(0))
    world.barrier()


def export_adapters(output: Path, config: LoraConfig, tensors: Mapping[str, Tensor], base: str) -> None:
    """Write adapters alone, replacing those of before."""
    with Interruption() as interruption, staged_directory(output, interruption, overwrite=True) as staging:
        save_adapters(staging, {name: tensor.detach() for name, tensor in tensors.items()}, config, base)


def merge(base: Path, adapters: Path, output: Path, *, overwrite: bool = False) -> None:
    """Merge kept adapters into a checkpoint.

    Raises:
        TrainingError: they do not belong together.
        FuseError: the base is damaged, or `output` exists, or would replace what is read.
    """
    base, adapters = input_directory("--base", base), input_directory("--adapters", adapters)
    output = output_directory(output, [base, adapters], overwrite)
    read_weights(base)
    changes: LoraChanges = Adapters(adapters).changes()
    report = {"base": str(base), "adapters": str(adapters)}
    write_checkpoint(base, output, changes.names(), changes.apply, report)


def write_checkpoint(base: Path, output: Path, changed: set[str], change: Change, report: dict[str, Any]) -> None:
    """A copy of a checkpoint in which some tensors differ.

    Args:
        base: the checkpoint.
        output: appears by one rename, when it is whole.
        changed: published names of the tensors that differ.
        change: gives each.
        report: for `training.json`.
    Raises:
        TrainingError: the base lacks a tensor that differs, or has it in another shape.
    """
    files = _files(base)
    absent = changed - {published_name(name) for _path, names in files for name in names}
    if absent:
        raise TrainingError(f"{base} has no tensor {min(absent)}: it is not what was trained")
    with Interruption() as interruption, staged_directory(output, interruption, overwrite=True) as staging:
        for path, names in files:
            _write_shard(path, staging / path.name, names, changed, change)
        for path in base.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and path.name != REPORT_NAME:
                shutil.copyfile(path, staging / path.name)
        told = {"profile": profile_of(base), **report}
        (staging / REPORT_NAME).write_text(json.dumps(told, indent=2, default=str) + "\n", encoding="utf-8")


def profile_of(base: Path) -> str | None:
    """Which model of the family a checkpoint is, for whoever fuses what comes of it; None: nobody has said."""
    try:
        return find_evidence(read_json(base / "config.json")).profile.name
    except FuseError:
        return None


def _write_shard(source: Path, target: Path, names: list[str], changed: set[str], change: Change) -> None:
    if not changed & set(map(published_name, names)):
        shutil.copyfile(source, target)
        return
    shard = {}
    with safe_open(source, "pt") as file:
        for name in names:
            tensor, published = file.get_tensor(name), published_name(name)
            if published in changed:
                new = change(published, tensor)
                if new.shape != tensor.shape:
                    raise TrainingError(
                        f"{source}: {name} has shape {list(tensor.shape)}, what was trained {list(new.shape)}: "
                        "take the checkpoint that the run started from"
                    )
                tensor = new.to(tensor.dtype).contiguous()
            shard[name] = tensor
        save_file(shard, target, metadata=file.metadata() or _METADATA)


def _files(base: Path) -> list[tuple[Path, list[str]]]:
    """Weight files of a checkpoint and the names in each, in one order for everybody."""
    return list(_each_file(base))


def _each_file(base: Path) -> Iterator[tuple[Path, list[str]]]:
    index = base / INDEX_NAME
    paths = sorted(base.glob("*.safetensors"))
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        paths = [path for path in paths if path.name in named]
    for path in paths:
        with safe_open(path, "pt") as file:
            yield path, sorted(file.keys())
