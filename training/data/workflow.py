"""Keys of v0.5's `finetune_workflow.py`, as arguments of ours.

    path_to_jsonl           prepare: jsonl
    data_output_directory   prepare: output_dir, the folder
    data_name               prepare: output_dir, the name in it
    use_normalize           prepare: normalizer, `generate` or `none`
    path_to_model           both: model_path
    finetuned_model_output  finetune: output_dir
    use_lora                finetune: full training or LoRA
    training_config_file    finetune: its own file of v0.5; its keys are transformers' `TrainingArguments`
    lora_config_file        finetune: likewise, peft's `LoraConfig`

Source: MOSS-TTSD `finetune/finetune_config.yaml` (v0.5), which never names a codec: v1.0 needs one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError

_STRINGS = (
    "path_to_jsonl",
    "data_output_directory",
    "data_name",
    "path_to_model",
    "finetuned_model_output",
    "training_config_file",
    "lora_config_file",
)
_FLAGS = ("use_normalize", "use_lora")
_REQUIRED = ("path_to_jsonl", "data_output_directory", "data_name", "path_to_model", "finetuned_model_output")


@dataclass(frozen=True)
class Workflow:
    """A workflow of v0.5.

    Attributes:
        prepare: arguments of `prepare.prepare`, without the codec.
        model_path: to be fine-tuned.
        output_dir: of the fine-tuned model.
        lora: LoRA, else full training.
        training_config: file of `TrainingArguments`; None: not given.
        lora_config: file of a `LoraConfig`; None: not given.
    """

    prepare: dict[str, Any]
    model_path: Path
    output_dir: Path
    lora: bool
    training_config: Path | None
    lora_config: Path | None


def read_workflow(config: Mapping[str, Any]) -> Workflow:
    """Map the keys of `finetune_config.yaml`.

    Raises:
        DataError: a key is unknown, missing or of another type; the message names it.
    """
    given = {key: value for key, value in config.items() if value is not None and value != ""}
    unknown = sorted(given.keys() - {*_STRINGS, *_FLAGS})
    if unknown:
        raise DataError(f"unknown workflow keys {', '.join(unknown)}: known are {', '.join((*_STRINGS, *_FLAGS))}")
    for key, value in given.items():
        kind = bool if key in _FLAGS else str
        if not isinstance(value, kind):
            what = "true or false" if kind is bool else "a string"
            raise DataError(f"workflow key {key}: expected {what}, got {value!r}")
    missing = [key for key in _REQUIRED if key not in given]
    if missing:
        raise DataError(f"workflow keys {', '.join(missing)} are missing")

    def path(key: str) -> Path | None:
        return Path(given[key]) if key in given else None

    return Workflow(
        prepare={
            "jsonl": [Path(given["path_to_jsonl"])],
            "model_path": Path(given["path_to_model"]),
            "output_dir": Path(given["data_output_directory"]) / given["data_name"],
            "normalizer": "generate" if given.get("use_normalize", False) else "none",
        },
        model_path=Path(given["path_to_model"]),
        output_dir=Path(given["finetuned_model_output"]),
        lora=given.get("use_lora", False),
        training_config=path("training_config_file"),
        lora_config=path("lora_config_file"),
    )
