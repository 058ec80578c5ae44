"""Copies of the golden checkpoints: how tests change and compare them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from golden_data import GOLDEN
from safetensors import safe_open
from safetensors.torch import save_file

from sglang_moss.fuse.checkpoint import INDEX_NAME, SINGLE_NAME, read_weights


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_shard(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, path)


def to_single_file(directory: Path) -> None:
    """Turn shards and index into one model.safetensors."""
    tensors = {}
    for shard in directory.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shard.unlink()
    (directory / INDEX_NAME).unlink()
    save_file(tensors, directory / SINGLE_NAME)


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def tensor_bytes(directory: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Dtype, shape and bytes of every tensor of a checkpoint."""
    return {
        name: (t.dtype, t.shape, t.path.read_bytes()[t.offset : t.offset + t.n_bytes])
        for name, t in read_weights(directory).items()
    }


def check_fused(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GOLDEN / "check_fused.py"), str(directory), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def drop_from_index(directory: Path, name: str) -> None:
    edit_json(directory / INDEX_NAME, lambda index: index["weight_map"].pop(name))


def drop_tensor(directory: Path, name: str) -> None:
    """Remove a tensor from its shard and from the index."""
    shard = json.loads((directory / INDEX_NAME).read_text())["weight_map"][name]
    edit_shard(directory / shard, lambda tensors: tensors.pop(name))
    drop_from_index(directory, name)


def add_tensor(directory: Path, name: str) -> None:
    """Add a tensor to the last shard and to the index."""
    shard = sorted(directory.glob("*.safetensors"))[-1]
    edit_shard(shard, lambda tensors: tensors.update({name: torch.zeros(2)}))
    edit_json(directory / INDEX_NAME, lambda index: index["weight_map"].update({name: shard.name}))


def edit_config(directory: Path, change: Callable[[dict], object]) -> None:
    edit_json(directory / "config.json", change)
