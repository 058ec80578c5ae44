"""Settings of v0.5's workflow as ours: its own file, and the two that it names.

    learning_rate, weight_decay, adam_*, max_grad_norm,      optimizer.*
    lr_scheduler_type, warmup_ratio
    num_train_epochs, max_steps, seed                        epochs, steps, seed
    logging_steps, save_steps, save_total_limit, eval_steps  log_every, checkpoints.*, validation.every
    r, lora_alpha, lora_dropout, target_modules              lora.*

Anything else of those two files has no meaning here (batches are packs, precision is settled) and is named.

Source: MOSS-TTSD v0.5 `finetune/`: transformers' `TrainingArguments`, peft's `LoraConfig`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .data.workflow import Workflow, read_workflow
from .errors import TrainingError

MARK = "path_to_jsonl"  # a key of every such file
_TRAINING = {
    "learning_rate": "optimizer.rate",
    "weight_decay": "optimizer.weight_decay",
    "adam_epsilon": "optimizer.eps",
    "max_grad_norm": "optimizer.clip",
    "lr_scheduler_type": "optimizer.schedule",
    "warmup_ratio": "optimizer.warmup_share",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "seed": "seed",
    "logging_steps": "log_every",
    "save_steps": "checkpoints.every",
    "save_total_limit": "checkpoints.keep",
    "eval_steps": "validation.every",
}
_LORA = {"r": "lora.rank", "lora_alpha": "lora.alpha", "lora_dropout": "lora.dropout"}
_PARTS = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}


def read_legacy(content: Mapping[str, Any]) -> tuple[Workflow, dict[str, Any], list[str]]:
    """A workflow of v0.5.

    Args:
        content: of its file.
    Returns:
        What is prepared; settings by our whole names; and keys that have no meaning here.
    Raises:
        TrainingError: a key is unknown or has a value that cannot be taken, or a file cannot be read.
    """
    workflow = read_workflow(content)
    settings: dict[str, Any] = {
        "model": str(workflow.model_path),
        "dataset": str(workflow.prepare["output_dir"]),
        "output": str(workflow.output_dir),
        "method": "lora" if workflow.lora else "full",
    }
    ignored: list[str] = []
    if workflow.training_config is not None:
        given = _read(workflow.training_config)
        betas = given.pop("adam_beta1", None), given.pop("adam_beta2", None)
        if None not in betas:
            settings["optimizer.betas"] = list(betas)
        if given.get("max_steps", 1) < 1:
            given.pop("max_steps")
        settings |= {_TRAINING[key]: value for key, value in given.items() if key in _TRAINING}
        ignored += [key for key in given if key not in _TRAINING]
    if workflow.lora and workflow.lora_config is not None:
        given = _read(workflow.lora_config)
        if given.pop("use_rslora", False) and "lora_alpha" in given:
            given["lora_alpha"] *= given.get("r", 32) ** 0.5  # alpha / sqrt(r), said as alpha / r
        targets = given.pop("target_modules", None)
        if targets is not None:
            settings["lora.targets"] = _targets(targets)
        settings |= {_LORA[key]: value for key, value in given.items() if key in _LORA}
        ignored += [key for key in given if key not in _LORA]
    return workflow, settings, ignored


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise TrainingError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: expected keys and values")
    return content


def _targets(names: str | list[str]) -> str:
    if isinstance(names, str):
        return names
    known = {name: part for part, members in _PARTS.items() for name in members}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TrainingError(f"target_modules: {unknown[0]!r} is no linear layer of the backbone: {', '.join(known)}")
    chosen = "|".join(rf"{known[name]}\.{re.escape(name)}" for name in names)
    return rf"language_model\.layers\.\d+\.({chosen})"
