"""A run's model: made, filled from the checkpoint, and what of it is trained."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .attention import choose_backend
from .config import TrainConfig
from .distributed import World
from .errors import TrainingError
from .layer_wrapping import wrap_layers
from .lora import add_lora, base_name
from .memory import device_memory, is_sharded, settle_exchange
from .model import ModelShape, SpeechModel, empty_model, materialize
from .sharded import Exchange, Sharded
from .trained import Replicated, Trained
from .weights import fill


def read_model_config(directory: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint.

    Raises:
        TrainingError: there is none, or it is no JSON object.
    """
    try:
        content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{directory} is no checkpoint: config.json cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{directory / 'config.json'} must hold a JSON object")
    return content


def compute_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What the model computes in."""
    name = config.compute.dtype
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, name)


def build(config: TrainConfig, world: World, directory: Path | None) -> tuple[SpeechModel, Trained]:
    """The model on its device, ready to train.

    Args:
        config: of the run; its `model` says the shape.
        world: full training over several ranks is sharded, unless `compute.parallel` says otherwise; all else is not.
        directory: where the weights are; None: they are left as they come, to be filled in by whoever asked.
    Raises:
        TrainingError: the checkpoint cannot be used, or a setting does not fit it.
    """
    shape = ModelShape.from_dict(read_model_config(Path(config.model)))
    dtype = compute_dtype(config, world.device)
    backend = choose_backend(config.compute.attention, world.device, dtype)
    trained: Trained
    if is_sharded(config, world.size):
        with torch.device("meta"):
            model = SpeechModel(shape).float()
        wrap_layers(model, config.compute)
        trained = Sharded(model, dtype, _exchange(config, shape, world, dtype))
        materialize(model, world.device)
    else:
        model = empty_model(shape, world.device, dtype)
        if config.method == "lora":
            add_lora(model, config.lora, config.seed)
        trained = Replicated(model, world)
        wrap_layers(model, config.compute)
    model.attention = backend
    model.lm_heads.chunk_rows = config.loss.chunk_rows
    if directory is not None:
        fill(_targets(model, trained), directory)
    return model.train(), trained


def _exchange(config: TrainConfig, shape: ModelShape, world: World, dtype: torch.dtype) -> Exchange:
    """The first rank's, since all of them have to do the same."""
    settled = settle_exchange(config, shape, world.size, dtype.itemsize, device_memory(world.device))
    return world.from_leader(settled.compute.exchange)


def _targets(model: SpeechModel, trained: Trained) -> dict[str, list[Tensor]]:
    """Parameters and their masters, by the checkpoint's names."""
    masters = trained.tensors
    targets: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        published = base_name(name)
        if published is not None:
            master = masters.get(name, parameter)
            targets[published] = [parameter] if master is parameter else [parameter, master]
    return targets
