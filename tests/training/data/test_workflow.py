"""Keys of v0.5's workflow: all of them have a meaning here, and no other is passed over."""

import inspect
from pathlib import Path

import pytest

from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.prepare import prepare
from sglang_moss.training.data.workflow import Workflow, read_workflow

pytestmark = pytest.mark.wide

CONFIG = {
    "path_to_jsonl": "talks.jsonl",
    "data_output_directory": "processed",
    "data_name": "talks",
    "use_normalize": True,
    "path_to_model": "MOSS-TTSD-v1.0",
    "finetuned_model_output": "tuned",
    "training_config_file": "training.yaml",
    "use_lora": False,
    "lora_config_file": None,
}


def test_every_key_is_mapped():
    workflow = read_workflow(CONFIG)
    assert workflow == Workflow(
        prepare={
            "jsonl": [Path("talks.jsonl")],
            "model_path": Path("MOSS-TTSD-v1.0"),
            "output_dir": Path("processed/talks"),
            "normalizer": "generate",
        },
        model_path=Path("MOSS-TTSD-v1.0"),
        output_dir=Path("tuned"),
        lora=False,
        training_config=Path("training.yaml"),
        lora_config=None,
    )
    assert workflow.prepare.keys() <= inspect.signature(prepare).parameters.keys()


def test_what_is_optional_has_v05s_defaults():
    few = {key: CONFIG[key] for key in CONFIG if key.startswith(("path", "data", "finetuned"))}
    assert read_workflow(few).prepare["normalizer"] == "none"
    assert not read_workflow(few).lora


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path_to_pkl": "a"}, "unknown workflow keys path_to_pkl: known are path_to_jsonl, "),
        ({"path_to_model": ""}, "workflow keys path_to_model are missing"),
        ({"use_lora": "yes"}, "use_lora: expected true or false, got 'yes'"),
        ({"data_name": 3}, "data_name: expected a string, got 3"),
    ],
)
def test_what_is_no_workflow_is_refused_by_key(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        read_workflow(CONFIG | changes)
