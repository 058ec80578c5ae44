"""Reading a checkpoint into a model, tensor by tensor: the published layout, or a fused one.

published                         fused
language_model.*                  model.*
emb_ext.*, lm_heads.*             emb_ext.*, lm_heads.*
                                  codec_model.*    not the language model's
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..fuse.checkpoint import read_weights
from ..fuse.plan import CODEC_PREFIXES, LM_PREFIXES
from ..fuse.safetensors_file import StoredTensor
from .errors import TrainingError

_CODEC_PREFIX = CODEC_PREFIXES[""]
_PUBLISHED = {fused: published for published, fused in LM_PREFIXES.items()}


def language_model_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Where each tensor of the language model lies, by its published name.

    Raises:
        TrainingError: the weights are missing or damaged.
    """
    try:
        stored = read_weights(directory)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    return {published_name(name): tensor for name, tensor in stored.items() if not name.startswith(_CODEC_PREFIX)}


def published_name(name: str) -> str:
    """A tensor's name in a published checkpoint, given the one in a published or fused one."""
    for fused, published in _PUBLISHED.items():
        if name.startswith(fused):
            return published + name.removeprefix(fused)
    return name


def load_weights(model: nn.Module, directory: Path) -> None:
    """Fill every parameter of a model; see `fill`."""
    fill({name: [parameter] for name, parameter in model.named_parameters()}, directory)


def fill(targets: Mapping[str, Sequence[Tensor]], directory: Path) -> None:
    """Copy a checkpoint's tensors, each rounded to the dtype of what takes it; a sharded one takes its part.

    Args:
        targets: what takes each tensor of the language model, by its published name.
        directory: of the checkpoint.
    Raises:
        TrainingError: a tensor is missing, unexpected or of another shape.
    """
    stored = language_model_tensors(directory)
    for what, names in (("lack", targets.keys() - stored), ("also hold", stored.keys() - targets)):
        if names:
            raise TrainingError(
                f"the weights in {directory} {what} {len(names)} tensors, first {min(names)}: take config.json and "
                "weights of one checkpoint"
            )
    with torch.no_grad():
        for name, tensor in read_tensors(stored):
            for target in targets[name]:
                if tensor.shape != target.shape:
                    raise TrainingError(
                        f"{stored[name].path}: {name} has shape {list(tensor.shape)}, config.json says "
                        f"{list(target.shape)}: take both from one checkpoint"
                    )
                target.copy_(_part_of(tensor, target) if isinstance(target, DTensor) else tensor)


def _part_of(tensor: Tensor, target: DTensor) -> DTensor:
    """Every rank reads the file itself, so nothing is sent."""
    whole = tensor.to(target.device, target.dtype)
    return distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)


def read_tensors(stored: dict[str, StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors themselves, one at a time, each file opened once."""
    for path in sorted({tensor.path for tensor in stored.values()}):
        with safe_open(path, "pt") as file:
            for name, tensor in stored.items():
                if tensor.path == path:
                    yield name, file.get_tensor(tensor.name)
