"""What a run goes on from: float32 weights, the optimizer's state, and the step; by torch's distributed checkpoints.

A checkpoint is copied to main memory, and written by a thread while training goes on; under another name, and renamed
once all of it is on the disk: what is found is whole.
"""

import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import AdamW

from ..fuse.writer import flush_directory
from .distributed import TIMEOUT, World
from .errors import TrainingError
from .optimizer import STATES

_NAME = re.compile(r"step-(\d{8})")
_STATE = "run.json"
_WRITING = ".writing-"

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one output directory."""

    def __init__(self, directory: Path, keep: int, world: World, *, background: bool = True) -> None:
        """
        Args:
            directory: holds them; made if need be.
            keep: how many of the last are kept, besides the one called the best.
            world: every rank calls every method.
            background: write while training goes on, from a copy in main memory.
        """
        self._directory = directory
        self._keep = keep
        self._world = world
        self._background = background
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        # The writer's own, since training talks meanwhile.
        self._group: Any = distributed.new_group(backend="gloo", timeout=TIMEOUT) if world.size > 1 else None
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is meant to be one
        if world.leads:
            directory.mkdir(parents=True, exist_ok=True)
            for unfinished in directory.glob(f"{_WRITING}*"):
                shutil.rmtree(unfinished, ignore_errors=True)
        world.barrier()

    def latest(self) -> Path | None:
        """The last whole checkpoint."""
        self.finish()
        return self._world.from_leader(max(self._all(), default=None))

    def at(self, step: int) -> Path:
        """Where the checkpoint of a step is, if it is there."""
        return self._directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Tensor], optimizer: AdamW, state: Mapping[str, Any]) -> Path:
        """Write one, and remove what is too old; weights may change as soon as this returns.

        Args:
            step: optimizer steps done.
            tensors: float32 weights by name.
            optimizer: over them.
            state: what JSON can hold; `best_step` of it is kept.
        Returns:
            Where it will be after `finish`.
        Raises:
            TrainingError: the one before could not be written.
        """
        self.finish()
        path = self.at(step)
        writing = self._directory / f"{_WRITING}{path.name}"
        content, alone, state = _content(tensors, optimizer), self._world.size == 1, {**state, "step": step}
        if not self._background:
            self._complete(
                lambda: state_dict_saver.save(content, checkpoint_id=writing, no_dist=alone), writing, path, state
            )
            self._world.barrier()
            return path
        written = state_dict_saver.async_save(content, checkpoint_id=writing, process_group=self._group, no_dist=alone)
        assert isinstance(written, Future), "the copy in main memory is whole"
        self._pending = self._writer.submit(self._complete, written.result, writing, path, state)
        return path

    def finish(self) -> None:
        """Wait until what is being written is there, on every rank.

        Raises:
            TrainingError: it could not be written.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()
            self._world.barrier()

    def close(self) -> None:
        """Let what is being written end, whatever becomes of the run; that it failed is logged."""
        self._writer.shutdown()
        if self._pending is not None and (error := self._pending.exception()) is not None:
            logger.error("%s", error)

    def load(self, path: Path, tensors: Mapping[str, Tensor], optimizer: AdamW | None = None) -> None:
        """Fill weights and the optimizer's state in place.

        Raises:
            TrainingError: the checkpoint is of other weights.
        """
        self.finish()
        try:
            state_dict_loader.load(_content(tensors, optimizer), checkpoint_id=path, no_dist=self._world.size == 1)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise TrainingError(f"{path} is of another model, or damaged: take another output") from error

    def _complete(self, write: Callable[[], Any], writing: Path, path: Path, state: Mapping[str, Any]) -> None:
        """Once all ranks have written their parts, give them the name by which they are found."""
        try:
            write()
            if self._world.leads:
                (writing / _STATE).write_text(json.dumps(state, indent=2) + "\n")
                flush_directory(writing)
                if path.exists():
                    shutil.rmtree(path)
                writing.rename(path)
                flush_directory(self._directory)
                self._prune(state.get("best_step"))
        except (CheckpointException, OSError) as error:
            reason = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            raise TrainingError(f"{path} cannot be written ({reason}): mend that, and run the same again") from error

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


def _plain(tensor: Tensor) -> Tensor:
    """The same memory, without a gradient."""
    with torch.no_grad():
        return tensor.detach()
