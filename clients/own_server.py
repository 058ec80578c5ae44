"""A server of one's own on every GPU of this machine, for as long as a piece of work lasts.

One server with a data-parallel rank a GPU: it has one address, sends a voice where it is known, and ends as a whole.
`CUDA_VISIBLE_DEVICES` says which GPUs there are, as everywhere; without any, the server runs on the processor.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .local_server import LocalServer
from .start_log import StartProgress

REQUESTS_A_GPU = 64  # under way at a time, unless somebody says otherwise
_COUNT = "import torch; print(torch.cuda.device_count())"  # in a process of its own: it takes a second, and memory
_LEAVING = ("--shutdown-seconds", "0")  # who stops it waits for no answer any more


def n_gpus() -> int:
    """GPUs that a process of this environment sees."""
    counted = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True)
    return int(counted.stdout)


def own_server(
    model_path: Path, log: Path, gpus: int, server_args: str, on_progress: Callable[[StartProgress], None]
) -> LocalServer:
    """A server that is started by entering it, and stopped by leaving.

    Args:
        model_path: a fused checkpoint.
        log: file for what it prints.
        gpus: see `n_gpus`.
        server_args: more arguments of `sglang serve`, as one string.
    Raises:
        ValueError: the GPUs are not enough for the ranks that are asked for.
    """
    arguments = shlex.split(server_args)
    tp_size = int(arguments[arguments.index("--tp-size") + 1]) if "--tp-size" in arguments else 1
    dp_size = gpus // tp_size
    if gpus and not dp_size:
        raise ValueError(f"--tp-size {tp_size} needs as many GPUs, and {gpus} are visible")
    if dp_size > 1 and "--dp-size" not in arguments:
        arguments += ["--dp-size", str(dp_size)]
    return LocalServer(
        model_path, log=log, extra_args=[*arguments, *_LEAVING], start_timeout_s=1800.0, on_progress=on_progress
    )
