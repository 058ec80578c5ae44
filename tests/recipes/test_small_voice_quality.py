"""The shipped voice clears its bars: the short form of `sglang_moss.benchmarks.quality`, through the real server."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.server
def test_the_small_voice_is_understood(tmp_path: Path):
    command = [sys.executable, "-m", "sglang_moss.benchmarks.quality", "--short", "--out", str(tmp_path / "q.jsonl")]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
