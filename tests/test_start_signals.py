"""A server that is told to end before it listens: one line, no traceback, no child and no file left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from server_processes import lives
from waiting import wait_for

STARTS = """
import signal, subprocess, sys, time, types
from sglang_moss import socket_folder, start_signals
start_signals.end_at_once()
socket_folder.enter()
sys.modules["sglang"] = types.ModuleType("sglang")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True)
time.sleep(60)
"""


def start(root: Path, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", before + STARTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(root)},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals):
    process = start(tmp_path)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline().split()[0]))
    assert list(tmp_path.iterdir()) != []
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert told == f"sglang_moss: {number.name} while the server starts: nothing is left running\n"
    assert list(tmp_path.iterdir()) == []
    wait_for(lambda: not lives(child))


def test_a_background_job_is_not_stopped_by_ctrl_c(tmp_path: Path):
    process = start(tmp_path, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    assert process.stdout is not None
    assert process.stdout.readline().split()[1] == "True"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_start_whose_log_nobody_reads_any_more_is_stopped_all_the_same(tmp_path: Path):
    process = start(tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stderr.close()  # `| tee` ends by the same Ctrl-C
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 128 + signal.SIGINT
    assert list(tmp_path.iterdir()) == []
