"""A run on invented speech, as a program of its own: `python train_invented.py '{"output": ...}'`, also by torchrun."""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from golden_data import GOLDEN
from speech_examples import InventedSpeech

from sglang_moss.training.checkpoints import Checkpoints
from sglang_moss.training.config import TrainConfig
from sglang_moss.training.config_file import config_of
from sglang_moss.training.distributed import processes
from sglang_moss.training.run import finetune

N_EXAMPLES = 24
HANGS_AT = "HANGS_AT"  # variable with a step at whose checkpoint the run stops for ever
SMALL: dict[str, Any] = {
    "model": str(GOLDEN / "ttsd"),
    "dataset": "invented",
    "steps": 4,
    "tensorboard": False,
    "packing": {"rows": 512, "per_step": 3, "pad_to": 64},
    "optimizer": {"rate": 1e-3},
    "compute": {"device": "cpu", "checkpointing": "none"},
    "data": {"workers": 0},
    "lora": {"rank": 4},
}


def small_config(output: Path, **changes: Any) -> TrainConfig:
    """Settings that take seconds; a section given changes the keys that it has."""
    content = {**SMALL, "output": str(output)}
    for key, value in changes.items():
        content[key] = {**SMALL.get(key, {}), **value} if isinstance(value, dict) else value
    return config_of(content)


def _hang_at(last: int) -> None:
    save = Checkpoints.save

    def save_or_hang(self: Checkpoints, step: int, *arguments: Any) -> Path:
        if step >= last:
            threading.Event().wait()
        return save(self, step, *arguments)

    Checkpoints.save = save_or_hang


def main() -> None:
    torch.set_num_threads(1)
    if step := os.environ.get(HANGS_AT):
        _hang_at(int(step))
    with processes("cpu"):
        for changes in json.loads(sys.argv[1]):
            finetune(small_config(**changes), InventedSpeech(N_EXAMPLES))


if __name__ == "__main__":
    main()
