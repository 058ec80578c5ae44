"""A batch with a server of its own: on every GPU, and gone with the batch, however that ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from server_processes import lives
from waiting import wait_for

from sglang_moss.clients.own_server import n_gpus, own_server

BATCH = (sys.executable, "-m", "sglang_moss.clients", "batch")
N_LINES = 12


def arguments(gpus: int, server_args: str = "") -> list[str]:
    server = own_server(Path("fused"), Path("log"), gpus, server_args, lambda _progress: None)
    return list(server._extra_args)


def test_there_is_a_rank_for_every_gpu():
    assert "--dp-size" not in arguments(0)
    assert "--dp-size" not in arguments(1)
    assert arguments(4)[:2] == ["--dp-size", "4"]
    assert arguments(4, "--quantization fp8 --tp-size 2")[-4:-2] == ["--dp-size", "2"]
    assert arguments(4, "--dp-size 3")[:2] == ["--dp-size", "3"]
    assert arguments(4, "--dp-size 3").count("--dp-size") == 1


def test_too_few_gpus_are_said():
    with pytest.raises(ValueError, match="--tp-size 4 needs as many GPUs, and 2 are visible"):
        arguments(2, "--tp-size 4")


@pytest.mark.wide
def test_what_is_hidden_is_not_counted(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert n_gpus() == 0


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(3600)  # two servers that import everything
def test_a_batch_that_is_broken_off_leaves_no_server_and_goes_on(fused_path: Path, tmp_path: Path):
    lines = [{"text": f"[S1] This is line {i}. [S2] I see."} for i in range(N_LINES)]
    input_jsonl, out = tmp_path / "in.jsonl", tmp_path / "out"
    input_jsonl.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    command = [*BATCH, "--model-path", str(fused_path), "--input-jsonl", str(input_jsonl), "--save-dir", str(out)]
    command += ["--concurrency", "1", "--seed", "1", "--max-seconds", "20"]
    batch = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(spoken(out)) >= 2 or batch.poll() is not None, seconds=1200)
    started = psutil.Process(batch.pid).children(recursive=True)
    batch.send_signal(signal.SIGINT)
    _, told = batch.communicate(timeout=240)
    assert batch.returncode == 130, told
    assert "interrupted" in told
    assert started
    wait_for(lambda: not any(map(lives, started)))
    before = {path: path.stat().st_mtime_ns for path in spoken(out)}
    assert 2 <= len(before) < N_LINES

    again = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert again.returncode in (0, 1), again.stderr  # random weights may say nothing
    assert f"{len(before)} done before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len((out / "output.jsonl").read_text().splitlines()) == N_LINES


def spoken(folder: Path) -> list[Path]:
    return sorted(folder.glob("0*.wav"))
