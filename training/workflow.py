"""From a JSONL file to a checkpoint that is served, by one command: prepare, fine-tune, export, fuse."""

import sys
from pathlib import Path
from typing import Any

from .config import CHECKPOINT_KEYS, TrainConfig
from .config_file import config_of, put, read_config, read_overrides, read_yaml
from .errors import TrainingError
from .legacy import MARK, read_legacy

DATASET_NAME = "dataset"


def read_workflow_config(path: str | None, overrides: list[str], jsonl: str | None) -> tuple[TrainConfig, Any]:
    """Settings of a run, and what is to be prepared before it.

    Args:
        path: YAML of settings, ours or those of v0.5's workflow.
        overrides: see `config_file.read_overrides`.
        jsonl: records to prepare; None: the dataset is there, unless a workflow of v0.5 names records.
    Returns:
        Settings, and arguments of `data.prepare.prepare` or None.
    Raises:
        TrainingError: see `read_config`.
    """
    content = _legacy_content(path)
    if content is not None:
        return _legacy(content, overrides)
    if jsonl is None:
        return read_config(path, overrides), None
    said = dict(read_overrides(overrides))
    given = _output(path, said)
    config = read_config(path, [f"dataset={given / DATASET_NAME}", "fuse=true", *overrides])
    prepared = {"jsonl": jsonl, "output_dir": given / DATASET_NAME, "template": config.template or "ttsd"}
    if isinstance(config.dataset, str):
        prepared["output_dir"] = Path(config.dataset)
    return config, _arguments(config, prepared)


def prepare(arguments: dict[str, Any]) -> None:
    """Make the dataset, or go on with it; nothing is done where it is whole.

    Raises:
        DataError: see `data.prepare.prepare`; a codec that is missing is named as the settings do.
        FuseError: a checkpoint is incomplete.
    """
    from .data.checkpoint import Checkpoint
    from .data.prepare import prepare as prepare_data

    Checkpoint.open(arguments["model_path"], arguments["codec_path"], CHECKPOINT_KEYS)
    print(prepare_data(**arguments), file=sys.stderr)


def _legacy(content: dict[str, Any], overrides: list[str]) -> tuple[TrainConfig, Any]:
    workflow, settings, ignored = read_legacy(content)
    for key in ignored:
        print(f"{key} of the workflow of v0.5 has no meaning here and is left out", file=sys.stderr)
    nested: dict[str, Any] = {"fuse": True}
    for key, value in [*settings.items(), *read_overrides(overrides)]:
        put(nested, key, value)
    config = config_of(nested)
    return config, _arguments(config, {**workflow.prepare, "template": config.template or "ttsd"})


def _arguments(config: TrainConfig, prepared: dict[str, Any]) -> dict[str, Any]:
    return {**prepared, "model_path": config.model, "codec_path": config.codec, "max_rows": config.packing.max_rows}


def _legacy_content(path: str | None) -> dict[str, Any] | None:
    """What a file says, if it is one of v0.5's workflow."""
    content = {} if path is None else read_yaml(path)
    return content if MARK in content else None


def _output(path: str | None, said: dict[str, Any]) -> Path:
    output = said.get("output")
    if output is None and path is not None:
        output = read_yaml(path).get("output")
    if not isinstance(output, str):
        raise TrainingError("the key 'output' is missing: say output=DIRECTORY")
    return Path(output)
