"""What a run goes on from: float32 weights, the optimizer's state, and the step; by torch's distributed checkpoints.

A checkpoint is written under another name and renamed once all of it is on the disk: what is found is whole.
"""

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import AdamW

from ..fuse.writer import flush_directory
from .distributed import World
from .errors import TrainingError
from .optimizer import STATES

_NAME = re.compile(r"step-(\d{8})")
_STATE = "run.json"
_WRITING = ".writing-"


class Checkpoints:
    """The checkpoints of one output directory."""

    def __init__(self, directory: Path, keep: int, world: World) -> None:
        """
        Args:
            directory: holds them; made if need be.
            keep: how many of the last are kept, besides the one called the best.
            world: every rank calls every method.
        """
        self._directory = directory
        self._keep = keep
        self._world = world
        if world.leads:
            directory.mkdir(parents=True, exist_ok=True)
            for unfinished in directory.glob(f"{_WRITING}*"):
                shutil.rmtree(unfinished, ignore_errors=True)
        world.barrier()

    def latest(self) -> Path | None:
        """The last whole checkpoint."""
        return self._world.from_leader(max(self._all(), default=None))

    def at(self, step: int) -> Path:
        """Where the checkpoint of a step is, if it is there."""
        return self._directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Tensor], optimizer: AdamW, state: Mapping[str, Any]) -> Path:
        """Write one, and remove what is too old.

        Args:
            step: optimizer steps done.
            tensors: float32 weights by name.
            optimizer: over them.
            state: what JSON can hold; `best_step` of it is kept.
        """
        path = self.at(step)
        writing = self._directory / f"{_WRITING}{path.name}"
        with _quiet():
            state_dict_saver.save(_content(tensors, optimizer), checkpoint_id=writing, no_dist=self._world.size == 1)
        if self._world.leads:
            (writing / _STATE).write_text(json.dumps({**state, "step": step}, indent=2) + "\n")
            flush_directory(writing)
            if path.exists():
                shutil.rmtree(path)
            writing.rename(path)
            flush_directory(self._directory)
            self._prune(state.get("best_step"))
        self._world.barrier()
        return path

    def load(self, path: Path, tensors: Mapping[str, Tensor], optimizer: AdamW | None = None) -> None:
        """Fill weights and the optimizer's state in place.

        Raises:
            TrainingError: the checkpoint is of other weights.
        """
        try:
            with _quiet():
                state_dict_loader.load(_content(tensors, optimizer), checkpoint_id=path, no_dist=self._world.size == 1)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise TrainingError(f"{path} is of another model, or damaged: take another output") from error

    def _all(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]

    def _prune(self, best_step: int | None) -> None:
        old = sorted(self._all())[: -self._keep]
        for path in old:
            if best_step is None or path != self.at(best_step):
                shutil.rmtree(path)


def read_state(path: Path) -> dict[str, Any]:
    """What was known beside the weights: the step, and what `save` was given."""
    return json.loads((path / _STATE).read_text(encoding="utf-8"))


def _content(tensors: Mapping[str, Tensor], optimizer: AdamW | None) -> dict[str, Any]:
    content: dict[str, Any] = {"weights": {name: _plain(tensor) for name, tensor in tensors.items()}}
    if optimizer is not None:
        states = {name: optimizer.state[tensor] for name, tensor in tensors.items()}
        content["optimizer"] = {name: {key: state[key] for key in STATES} for name, state in states.items()}
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """One process is meant to be one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _plain(tensor: Tensor) -> Tensor:
    """The same memory, without a gradient."""
    with torch.no_grad():
        return tensor.detach()
