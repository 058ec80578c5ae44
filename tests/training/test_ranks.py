"""Two processes do what one does, in fp32 on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuse_checkpoints import tensor_bytes
from safetensors.torch import load_file
from speech_examples import InventedSpeech
from train_invented import N_EXAMPLES, small_config
from train_invented import __file__ as program

from sglang_moss.training.progress import read_log
from sglang_moss.training.run import finetune

pytestmark = pytest.mark.slow
CASES = {
    # Three packs a step do not share out evenly among two ranks.
    "full": {"method": "full", "validation": {"share": 0.2, "every": 2}, "compute": {"exchange": "step"}},
    "pack": {"method": "full", "validation": {"share": 0.2, "every": 2}, "compute": {"exchange": "pack"}},
    "bf16": {"method": "full", "compute": {"exchange": "step", "dtype": "bfloat16", "checkpointing": "selective"}},
    "replicated": {"method": "full", "compute": {"parallel": "replicated", "dtype": "bfloat16"}},
    "lora": {"method": "lora", "lora": {"rank": 4, "dropout": 0.0, "audio_heads": True}},
}


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
# 0: a port that is free, which its own 29500 may not be.
ACCELERATE += ("--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no")


def run_two(launcher: tuple[str, ...], directory: Path, cases: dict[str, dict]) -> Path:
    runs = [{"output": str(directory / name), **changes} for name, changes in cases.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(program).parent)}
    command = [sys.executable, "-m", *launcher, program, json.dumps(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    constant = {"optimizer": {"schedule": "constant", "warmup_share": 0.0}}
    parts = {"output": str(directory / "parts"), **constant}
    resumed = {"whole": constant, "first": {**parts, "steps": 2}, "second": parts}
    return run_two(TORCHRUN, directory, CASES | resumed)


@pytest.mark.parametrize("name", CASES)
def test_losses_and_weights_are_those_of_one_rank(name, two_ranks, tmp_path):
    finetune(small_config(tmp_path / name, **CASES[name]), InventedSpeech(N_EXAMPLES))
    alone, shared = read_log(tmp_path / name), read_log(two_ranks / name)
    assert len(alone) == len(shared)
    for one, two in zip(alone, shared, strict=True):
        for key in ("loss", "gradient_norm", "validation_loss"):
            if key in one:
                assert two[key] == pytest.approx(one[key], rel=1e-5)
    assert tensor_bytes(two_ranks / name / "model").keys() == tensor_bytes(tmp_path / name / "model").keys()
    for path in (tmp_path / name / "model").glob("*.safetensors"):
        shared_weights = load_file(two_ranks / name / "model" / path.name)
        for tensor_name, tensor in load_file(path).items():
            torch.testing.assert_close(shared_weights[tensor_name], tensor, rtol=0, atol=2e-5, msg=tensor_name)


def test_two_ranks_go_on_as_if_nothing_had_been(two_ranks):
    parts, whole = ([line["loss"] for line in read_log(two_ranks / name)] for name in ("parts", "whole"))
    assert len(parts) == 4
    assert parts == whole


def test_accelerate_starts_the_same_run(two_ranks, tmp_path):
    run_two(ACCELERATE, tmp_path, {"full": CASES["full"]})
    assert len(list(tmp_path.glob("full/checkpoints/step-00000004/*.distcp"))) == 2
    logs = [read_log(directory / "full") for directory in (tmp_path, two_ranks)]
    accelerated, torchrun = ([line["loss"] for line in log if "loss" in line] for log in logs)
    assert accelerated == torchrun
