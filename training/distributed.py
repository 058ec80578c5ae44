"""The processes of a run: one for each GPU, started by torchrun or accelerate, or this one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from sglang_moss.devices import device_problem

from .errors import TrainingError

TIMEOUT = timedelta(minutes=30)  # a rank that writes a checkpoint keeps the others waiting


@dataclass(frozen=True)
class World:
    """Who this process is."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            distributed.barrier()

    def from_leader(self, value: Any) -> Any:
        """What rank 0 has, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


def device_of(name: str) -> torch.device:
    """This process's device; the environment says which of the machine's processes it is.

    Args:
        name: `auto`, `cuda`, `cpu`, or one GPU such as `cuda:1`.
    Raises:
        TrainingError: there is no such device, or several processes would share it.
    """
    if (problem := device_problem(name, auto=True)) is not None:
        raise TrainingError(f"compute.device: {problem}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "cuda":
        if local_rank >= (n_gpus := torch.cuda.device_count()):
            raise TrainingError(
                f"process {local_rank + 1} of this machine finds no GPU of its own among {n_gpus}: start no more "
                "processes than GPUs"
            )
        return torch.device("cuda", local_rank)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(f"compute.device: {name} is one GPU, and processes need one each: say cuda")
    return torch.device(name)


@contextmanager
def processes(device: str) -> Iterator[World]:
    """Join the other processes, whom the environment names as torchrun and accelerate set it, and leave in the end.

    A process that has joined already stays so.

    Args:
        device: `auto`, `cuda`, `cpu`, or one GPU such as `cuda:1`.
    Raises:
        TrainingError: see `device_of`.
    """
    own = device_of(device)
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    # Packs differ in size: without it the allocator is left with holes that fit none of them.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if own.type == "cuda":
        torch.cuda.set_device(own)
    joins = size > 1 and not distributed.is_initialized()
    if joins:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank, size, own)
    finally:
        if joins:
            distributed.destroy_process_group()
