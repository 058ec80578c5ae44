"""A run of many programs leaves none of them behind."""

import signal
import subprocess
import sys
from pathlib import Path

from waiting import wait_for

# Every step is a program with a child, which waits; both tell their process ids.
RUNS = """
import sys
from sglang_moss.benchmarks import training_runs
waits = "echo $$ >> {pids}; sleep 600 & echo $! >> {pids}; wait"
training_runs._Runs._command = lambda self, step: ["sh", "-c", waits]
sys.exit(training_runs.main())
"""


def test_sigterm_ends_every_program_with_its_children(tmp_path: Path):
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", RUNS.format(pids=pids), "cards", "--out", str(tmp_path)]
    runs = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 4, 60)  # one in either lane
        runs.send_signal(signal.SIGTERM)
        assert runs.wait(60) == 128 + signal.SIGTERM
    finally:
        runs.kill()
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 4  # and no step came after them
    wait_for(lambda: not any(_lives(pid) for pid in started))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
