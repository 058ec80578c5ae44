"""The processes of a run: one for each GPU, started by torchrun or accelerate, or this one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

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


@contextmanager
def processes(device: str) -> Iterator[World]:
    """Join the other processes, whom the environment names as torchrun and accelerate set it, and leave in the end.

    A process that has joined already stays so.

    Args:
        device: `auto`, `cuda`, `cpu`, or one GPU such as `cuda:1`.
    Raises:
        TrainingError: there is no such device.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    kind = device.partition(":")[0]
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cuda", "cpu"):
        raise TrainingError(f"compute.device: expected auto, cuda or cpu, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("compute.device: this process sees no GPU; set compute.device=cpu, or mend the driver")
    # Packs differ in size: without it the allocator is left with holes that fit none of them.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    own = torch.device(kind) if kind == "cpu" else torch.device(device if ":" in device else f"cuda:{local_rank}")
    if kind == "cuda":
        torch.cuda.set_device(own)
    joins = size > 1 and not distributed.is_initialized()
    if joins:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank, size, own)
    finally:
        if joins:
            distributed.destroy_process_group()
