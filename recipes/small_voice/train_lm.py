"""Train the language model with the project's own trainer, one process a GPU:

    torchrun --nproc-per-node 2 -m small_voice.train_lm ENCODED UNTRAINED OUTPUT --variant a --seconds 400

`OUTPUT/model` is the published layout.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglang_moss.devices import device_problem
from sglang_moss.training.config import TrainConfig
from sglang_moss.training.config_file import config_of
from sglang_moss.training.run import finetune
from sglang_moss.training.subsets import Subset

from .dialogues import n_first
from .measure_examples import N_VALIDATION, measured_path, open_dialogues

WEIGHTS = (4.0, 2.0, 1.5, *[1.0] * 13)  # of each codebook of sound; text counts 1
LETTERS_WEIGHT = 4.0
VARIANTS: dict[str, dict[str, Any]] = {
    "a": {"optimizer": {"rate": 1.5e-3}, "inputs": {"hidden_rows": 0.12, "hidden_codes": 0.08}},
    "b": {"optimizer": {"rate": 2.5e-3}, "inputs": {"hidden_rows": 0.25, "hidden_codes": 0.10}},
}


def working_attention() -> str:
    """varlen where this torch has it as the trainer needs it, else flex; on a CPU what the trainer takes."""
    if not torch.cuda.is_available():
        return "auto"
    from torch.nn.attention.varlen import varlen_attn

    q = torch.randn(64, 2, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    ends = torch.tensor([0, 30, 64], dtype=torch.int32, device="cuda")
    try:
        found: Any = varlen_attn(q, q, q, ends, ends, 1024, 1024, scale=0.125, window_size=(-1, 0))
        found.sum().backward()
    except (TypeError, RuntimeError) as error:
        print(f"varlen attention does not work here ({error!r}); flex takes its place", flush=True)
        return "flex"
    return "varlen"


def settings(args: argparse.Namespace, n_vq: int, *, has_letters: bool) -> TrainConfig:
    """The run's settings, every one that is not the trainer's default."""
    variant = VARIANTS[args.variant]
    on_gpu = args.device != "cpu"
    content: dict[str, Any] = {
        "model": str(args.untrained),
        "dataset": "dialogues",
        "output": str(args.output),
        "layout": "served",
        "epochs": 100,
        "steps": args.steps,
        "seconds": args.seconds,
        "seed": 1,
        "log_every": args.log_every,
        "tensorboard": False,
        "packing": {"rows": args.rows, "per_step": args.per_step, "max_rows": 2048, "ordered": True},
        "loss": {"weights": [1.0, *([LETTERS_WEIGHT] * has_letters), *WEIGHTS][: 1 + n_vq], "chunk_rows": 8192},
        "inputs": variant["inputs"],
        "optimizer": {
            "betas": [0.9, 0.95],
            "weight_decay": 0.1,
            "clip": 1.0,
            "schedule": "wsd",
            "warmup_share": 0.04,
            "decay_share": args.decay_share,
            "lowest": 0.02,
            **variant["optimizer"],
        },
        "compute": {
            "device": "auto" if on_gpu else "cpu",
            "attention": working_attention() if on_gpu else "auto",
            "checkpointing": "none",
            "compile": on_gpu and not args.no_compile,
            "parallel": "replicated",
        },
        "data": {"workers": args.workers, "ahead": 6},
        "validation": {"every": args.validate_every, "export_best": False},
        "checkpoints": {"every": args.save_every, "keep": 1, "export": True, "resume": False},
    }
    if args.rate:
        content["optimizer"]["rate"] = args.rate
    return config_of(content)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("encoded", type=Path)
    parser.add_argument("untrained", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="a")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--per-step", type=int, default=2)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--decay-share", type=float, default=0.3, help="of the steps, at the end")
    parser.add_argument("--grown", action="store_true", help="without the single utterances that come first")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--validate-every", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    if (problem := device_problem(args.device, auto=True)) is not None:
        parser.error(f"--device: {problem}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    n_vq = json.loads((args.untrained / "config.json").read_text())["n_vq"]
    lengths = {part: np.load(measured_path(args.encoded, n_vq, part)) for part in ("training", "validation")}
    examples = open_dialogues(args.encoded, args.untrained, len(lengths["training"]), "training")
    validation = open_dialogues(args.encoded, args.untrained, N_VALIDATION, "validation")
    has_letters = examples.has_letters
    examples, validation = examples.take(lengths["training"]), validation.take(lengths["validation"])
    if args.grown:
        examples = Subset(examples, np.arange(n_first(len(examples)), len(examples)))
    outcome = finetune(settings(args, n_vq, has_letters=has_letters), examples, validation)
    if outcome is not None:
        print(outcome, flush=True)


if __name__ == "__main__":
    main()
