"""Where kernel tests run: on a GPU, or in Triton's interpreter, which must be chosen before a kernel is imported.

A file of kernel tests puts its tensors on `DEVICE` and ends in `in_interpreter_without_gpu(globals())`. The interpreter
runs a kernel's programs one by one in Python, so there a file is slow.
"""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")


def in_interpreter_without_gpu(module: dict[str, Any]) -> None:
    """Where kernels cannot run, replace a module's tests by one that runs them all in a fresh interpreter."""
    if INTERPRETED or DEVICE.type == "cuda":
        return
    for name in [name for name in module if name.startswith("test_")]:
        del module[name]
    file = module["__file__"]

    @pytest.mark.slow
    def test_in_the_interpreter() -> None:
        command = [sys.executable, "-m", "pytest", "-x", "--no-header", file]
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    module["test_in_the_interpreter"] = test_in_the_interpreter
