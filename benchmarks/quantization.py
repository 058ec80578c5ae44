"""What a quantisation of the language model does to its logits, beside what another half-precision dtype does.

    python -m sglang_moss.benchmarks.quantization FUSED --quantization fp8 --out quantization.jsonl

The same rows, a prompt with made-up codes, go through the model in bfloat16, in float16 and quantised, and a line for
each of the last two says how far its logits are from the first one's: in units of their standard deviation, as the
Kullback-Leibler divergence of what is sampled from at temperature 1.1, and how often the most likely candidate is the
same. With random weights the logits are nearly flat, so that the most likely candidate is often a near-tie.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from .loads.prompt_rows import made_up_rows
from .loads.workloads import WORKLOADS, RequestMaker
from .runs.exiting import exit_on_sigterm
from .runs.record import record

_TEMPERATURE = 1.1
_CHANNELS = ("text_logits", "audio_logits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_path", type=Path)
    parser.add_argument("--quantization", default="fp8", help="SGLang's name for it (%(default)s)")
    parser.add_argument("--rows", type=int, default=256, help="of the prompt, its last ones (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("quantization.jsonl"))
    args = parser.parse_args()
    record(args.out, differences(args.model_path, args.quantization, args.rows))


def differences(model_path: Path, quantization: str, n_rows: int) -> Iterator[dict[str, Any]]:
    """Lines for text and audio logits: float16 against bfloat16, then quantised against bfloat16."""
    rows = made_up_rows(RequestMaker(WORKLOADS["dialogue"]), model_path)[-n_rows:]
    with tempfile.TemporaryDirectory() as folder:
        exact = forced(model_path, rows, Path(folder), "--dtype", "bfloat16")
        for name, flags in (
            ("float16", ["--dtype", "float16"]),
            (quantization, ["--dtype", "bfloat16", "--quantization", quantization]),
        ):
            other = forced(model_path, rows, Path(folder), *flags)
            for channel in _CHANNELS:
                yield {"check": channel, "weights": name, "rows": len(rows), **distance(other[channel], exact[channel])}


def forced(model_path: Path, rows: np.ndarray, folder: Path, *flags: str) -> dict[str, np.ndarray]:
    """What `forced_logits` makes of rows [S, 1 + n_vq], in a process of its own, which gives the GPU's memory back."""
    np.savez(folder / "rows.npz", input_ids=rows)
    module = "sglang_moss.benchmarks.forced_logits"
    command = [sys.executable, "-m", module, model_path, folder / "rows.npz", folder / "out.npz", *flags]
    subprocess.run(command, check=True)
    with np.load(folder / "out.npz") as arrays:
        return {channel: arrays[channel] for channel in _CHANNELS}


def distance(actual: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """How far logits [..., V] are from the expected ones."""
    error = actual - expected
    expected_log, actual_log = (log_softmax(x / _TEMPERATURE, axis=-1) for x in (expected, actual))
    divergence = (np.exp(expected_log) * (expected_log - actual_log)).sum(axis=-1)
    return {
        "std": float(expected.std()),
        "rms_error_over_std": float(np.sqrt(np.mean(error**2)) / expected.std()),
        "max_error_over_std": float(np.abs(error).max() / expected.std()),
        "kl_mean": float(divergence.mean()),
        "kl_max": float(divergence.max()),
        "argmax_equal": float((actual.argmax(-1) == expected.argmax(-1)).mean()),
    }


if __name__ == "__main__":
    exit_on_sigterm()
    main()
