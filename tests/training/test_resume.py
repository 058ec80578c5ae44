"""A run that is killed goes on as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from fuse_checkpoints import digests
from golden_data import GOLDEN
from speech_examples import InventedSpeech, write_dataset
from torch.distributed.checkpoint import FileSystemWriter, state_dict_saver
from train_invented import HANGS_AT, N_EXAMPLES, small_config
from train_invented import __file__ as program
from waiting import wait_for

from sglang_moss.training import checkpoints as checkpoints_module
from sglang_moss.training.checkpoints import Checkpoints, read_state
from sglang_moss.training.distributed import World
from sglang_moss.training.errors import TrainingError
from sglang_moss.training.optimizer import make_optimizer
from sglang_moss.training.progress import read_log
from sglang_moss.training.run import finetune

pytestmark = pytest.mark.wide

ALONE = World(0, 1, torch.device("cpu"))
# Dropout, so that what is drawn is put to the test as well.
SETTINGS = {"method": "lora", "lora": {"dropout": 0.3}, "checkpoints": {"every": 2}, "steps": 8}


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_log(output) if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SETTINGS, {"checkpoints": {"every": 2}, "steps": 8}], ids=["lora", "full"])
def test_a_killed_run_is_bit_equal_to_an_unbroken_one(settings, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    finetune(small_config(unbroken, **settings), InventedSpeech(N_EXAMPLES))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(program).parent)}
    process = subprocess.Popen(
        [sys.executable, program, json.dumps([{"output": str(killed), **settings}])],
        env=environment | {HANGS_AT: "6"},  # to be there still when it is killed
    )
    try:
        there = killed / "checkpoints" / "step-00000004"
        wait_for(lambda: there.exists() or process.poll() is not None, seconds=600)
        assert process.poll() is None, "the run ended by itself"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed / "model").exists()
    finetune(small_config(killed, **settings, data={"workers": 2, "ahead": 1}), InventedSpeech(N_EXAMPLES))
    assert losses(killed) == losses(unbroken)
    assert [line["step"] for line in read_log(killed)] == list(range(1, 9))
    weights = [{k: v for k, v in digests(one / "model").items() if k.endswith("tensors")} for one in (unbroken, killed)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path):
    dataset = write_dataset(tmp_path / "data", InventedSpeech(N_EXAMPLES))
    keys = ["data.workers=1", "checkpoints.every=2", "packing.rows=512", "compute.device=cpu", "tensorboard=false"]
    names = [f"model={GOLDEN / 'ttsd'}", f"dataset={dataset}", f"output={tmp_path / 'out'}"]
    command = [sys.executable, "-m", "sglang_moss.training", *names, *keys]
    started = subprocess.Popen(
        [*command, "steps=2000"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for((tmp_path / "out" / "checkpoints" / "step-00000004").exists, seconds=600)
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to its workers too
        _out, told = started.communicate(timeout=600)
    finally:
        started.kill()
    assert started.returncode == 130
    assert told.strip() == "interrupted: go on with the same command"
    checkpoints = Checkpoints(tmp_path / "out" / "checkpoints", keep=2, world=ALONE)
    latest = checkpoints.latest()
    assert latest is not None
    step = read_state(latest)["step"]
    done = subprocess.run([*command, f"steps={step + 1}"], capture_output=True, text=True, check=True)
    assert f"going on after step {step}" in done.stderr
    assert f"trained {step + 1} steps" in done.stdout


def test_a_run_that_stops_goes_on(tmp_path):
    finetune(small_config(tmp_path / "whole", steps=4), InventedSpeech(N_EXAMPLES))
    constant = {"optimizer": {"schedule": "constant", "warmup_share": 0.0}}
    finetune(small_config(tmp_path / "parts", steps=2, **constant), InventedSpeech(N_EXAMPLES))
    finetune(small_config(tmp_path / "parts", steps=4, **constant), InventedSpeech(N_EXAMPLES))
    finetune(small_config(tmp_path / "one", steps=4, **constant), InventedSpeech(N_EXAMPLES))
    assert losses(tmp_path / "parts") == losses(tmp_path / "one")
    assert losses(tmp_path / "parts") != losses(tmp_path / "whole")


KILLED_WHILE_WRITING = """
import sys
import threading
from pathlib import Path
import torch
from sglang_moss.training import checkpoints as module
from sglang_moss.training.distributed import World
from sglang_moss.training.optimizer import make_optimizer
tensors = {"a": torch.ones(2, 3), "b": torch.ones(4)}
optimizer = make_optimizer(tensors, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, decay_all=False)
checkpoints = module.Checkpoints(Path(sys.argv[1]), 2, World(0, 1, torch.device("cpu")))
checkpoints.save(1, tensors, optimizer, {})
checkpoints.finish()
def hang(_path):
    print("writing", flush=True)
    threading.Event().wait()
module.flush_directory = hang
for tensor in tensors.values():
    tensor.zero_()
checkpoints.save(2, tensors, optimizer, {})
checkpoints.finish()
"""


def some_tensors() -> tuple[dict[str, torch.Tensor], torch.optim.AdamW]:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    return tensors, make_optimizer(tensors, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, decay_all=False)


def some_state() -> tuple[dict[str, torch.Tensor], torch.optim.AdamW]:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}
    optimizer = make_optimizer(tensors, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, decay_all=False)
    for tensor in tensors.values():
        tensor.grad = tensor.clone()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    return tensors, optimizer


@pytest.mark.parametrize("background", [True, False])
def test_a_checkpoint_gives_back_what_was_saved(background, tmp_path, monkeypatch):
    tensors, optimizer = some_state()
    checkpoints = Checkpoints(tmp_path, keep=2, world=ALONE, background=background)
    if not background:  # then there is no copy, and nothing to wait for
        monkeypatch.delattr(state_dict_saver, "async_save")
    path = checkpoints.save(7, tensors, optimizer, {"note": 1})
    assert background or path.is_dir()
    checkpoints.finish()
    others, other_optimizer = some_state()
    for tensor in others.values():
        tensor.zero_()
    checkpoints.load(path, others, other_optimizer)
    assert read_state(path) == {"note": 1, "step": 7}
    for name, tensor in tensors.items():
        assert torch.equal(others[name], tensor)
        for key, value in optimizer.state[tensor].items():
            assert torch.equal(other_optimizer.state[others[name]][key], value)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    tensors, optimizer = some_state()
    checkpoints = Checkpoints(tmp_path, keep=2, world=ALONE)
    path = checkpoints.save(1, tensors, optimizer, {})
    with pytest.raises(TrainingError, match="another model, or damaged"):
        checkpoints.load(path, {"c": torch.zeros(1)})


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    tensors, optimizer = some_state()
    checkpoints = Checkpoints(tmp_path, keep=2, world=ALONE)
    for step in range(1, 6):
        checkpoints.save(step, tensors, optimizer, {"best_step": 2})
    checkpoints.finish()
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "4", "5"]
    assert checkpoints.latest() == checkpoints.at(5)


def test_what_is_half_written_is_never_found(tmp_path, monkeypatch):
    tensors, optimizer = some_state()
    checkpoints = Checkpoints(tmp_path, keep=2, world=ALONE)
    checkpoints.save(1, tensors, optimizer, {})
    checkpoints.finish()

    def power_cut(_path):
        raise RuntimeError("power cut")

    monkeypatch.setattr(checkpoints_module, "flush_directory", power_cut)
    checkpoints.save(2, tensors, optimizer, {})
    with pytest.raises(RuntimeError, match="power cut"):
        checkpoints.finish()
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    again = Checkpoints(tmp_path, keep=2, world=ALONE)
    assert again.latest() == again.at(1)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_changes_while_a_checkpoint_is_written_is_not_in_it(tmp_path, monkeypatch):
    tensors, optimizer = some_state()
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    moments = {name: optimizer.state[tensor]["exp_avg"].clone() for name, tensor in tensors.items()}
    goes_on = threading.Event()
    write = FileSystemWriter.write_data
    monkeypatch.setattr(FileSystemWriter, "write_data", lambda *args: (goes_on.wait(60), write(*args))[1])
    checkpoints = Checkpoints(tmp_path, keep=2, world=ALONE)
    path = checkpoints.save(1, tensors, optimizer, {})
    assert not path.exists()
    for tensor in tensors.values():
        optimizer.state[tensor]["exp_avg"].zero_()
        optimizer.state[tensor]["step"] += 5
        tensor.zero_()
    goes_on.set()
    checkpoints.load(path, tensors, optimizer)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name])
        assert torch.equal(optimizer.state[tensor]["exp_avg"], moments[name])
        assert optimizer.state[tensor]["step"] == 1


def test_a_process_killed_while_it_writes_leaves_the_checkpoint_before(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(program).parent)},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any(file.suffix == ".distcp" for file in (tmp_path / ".writing-step-00000002").iterdir())
    checkpoints = Checkpoints(tmp_path, keep=2, world=ALONE)
    assert checkpoints.latest() == checkpoints.at(1)
    tensors, optimizer = some_tensors()
    checkpoints.load(checkpoints.at(1), tensors, optimizer)
    assert [tensor.unique().tolist() for tensor in tensors.values()] == [[1.0], [1.0]]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(
    "at", [(FileSystemWriter, "write_data"), (checkpoints_module, "flush_directory")], ids=["weights", "end"]
)
def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_a_sentence(at, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*at, full)
    with pytest.raises(TrainingError, match=r"step-00000002 cannot be written \(.*No space left on device\)"):
        finetune(small_config(tmp_path, steps=3, checkpoints={"every": 2}), InventedSpeech(N_EXAMPLES))


def test_other_settings_are_refused_by_name(tmp_path):
    finetune(small_config(tmp_path, steps=1), InventedSpeech(N_EXAMPLES))
    with pytest.raises(TrainingError, match=r"run with packing\.rows 512, now it is 600"):
        finetune(small_config(tmp_path, steps=2, packing={"rows": 600}), InventedSpeech(N_EXAMPLES))
    with pytest.raises(TrainingError, match="examples 24, now it is 23"):
        finetune(small_config(tmp_path, steps=2), InventedSpeech(N_EXAMPLES - 1))
    with pytest.raises(TrainingError, match="of a run with method full, now it is lora"):
        finetune(small_config(tmp_path, steps=2, method="lora"), InventedSpeech(N_EXAMPLES))
    with pytest.raises(TrainingError, match=r"set checkpoints\.resume=true"):
        finetune(small_config(tmp_path, steps=2, checkpoints={"resume": False}), InventedSpeech(N_EXAMPLES))
