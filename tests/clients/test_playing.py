"""`--play`, with a stand-in for the player program."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoints import serving, three_events
from fake_manager import STOP, event, frames_of
from waiting import wait_for

pytestmark = pytest.mark.wide

SPOKEN = np.concatenate([frames_of(level) for level in (100, 200, 300)]).tobytes()  # by `three_events`
KEEPS = '#!/bin/sh\necho "$(basename "$0") $*" > "$PLAYED.args"\nexec cat > "$PLAYED"\n'
LEAVES = "#!/bin/sh\nexit 0\n"
FAILS = "#!/bin/sh\nexit 3\n"


def players(folder: Path, program: str, *names: str) -> Path:
    """A folder with nothing but players in it, and what they need."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    for tool in ("sh", "cat", "basename"):
        (folder / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    return folder


def say(url: str, tmp_path: Path, *args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sglang_moss.clients", "say", "Hi.", "--play", "--url", url, *args]
    env = os.environ | {"PATH": str(tmp_path / "bin"), "PLAYED": str(tmp_path / "played")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def test_what_is_spoken_is_played_and_may_be_kept_too(tmp_path: Path):
    players(tmp_path / "bin", KEEPS, "ffplay", "aplay")
    with serving(three_events, tmp_path) as (client, _):
        stdout, stderr = say(str(client.base_url), tmp_path, "-o", str(tmp_path / "out.wav")).communicate(timeout=60)
    assert (stdout[:15], stderr) == ("0.72 s of audio", "")
    assert (tmp_path / "played").read_bytes() == SPOKEN
    assert (tmp_path / "out.wav").read_bytes()[-len(SPOKEN) :] == SPOKEN
    assert (tmp_path / "played.args").read_text().startswith("ffplay ")


@pytest.mark.parametrize("name", ["ffplay", "pw-play", "paplay", "aplay", "play"])
def test_any_player_that_is_there_is_told_what_comes(tmp_path: Path, name: str):
    players(tmp_path / "bin", KEEPS, name)
    with serving(three_events, tmp_path) as (client, _):
        assert say(str(client.base_url), tmp_path).wait(timeout=60) == 0
    assert (tmp_path / "played").read_bytes() == SPOKEN
    arguments = (tmp_path / "played.args").read_text()
    assert arguments.startswith(name)
    assert "24000" in arguments


def test_without_a_player_nothing_is_asked_for(tmp_path: Path):
    players(tmp_path / "bin", KEEPS)
    with serving(three_events, tmp_path) as (client, manager):
        process = say(str(client.base_url), tmp_path)
        _stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.startswith("error: nothing to play sound with: install one of ffplay, ")
    assert manager.requests == []


def test_a_player_that_is_closed_spoils_no_file(tmp_path: Path):
    players(tmp_path / "bin", LEAVES, "aplay")

    def script(_request: Any) -> Iterator[dict[str, Any]]:
        for _ in range(20):
            yield event(frames_of(100, 50))
        yield event(frames_of(300), STOP)

    with serving(script, tmp_path, pause_seconds=0.01) as (client, manager):
        assert say(str(client.base_url), tmp_path, "-o", str(tmp_path / "out.wav")).wait(timeout=60) == 0
        assert (tmp_path / "out.wav").stat().st_size > 20 * 50 * 1920 * 2
        assert say(str(client.base_url), tmp_path).wait(timeout=60) == 0  # alone, it ends the request
        wait_for(lambda: len(manager.closed) == 2)


@pytest.mark.parametrize("kept", [False, True])
def test_a_player_that_fails_is_named_and_spoils_no_file(tmp_path: Path, kept: bool):
    players(tmp_path / "bin", FAILS, "pw-play")
    out = tmp_path / "out.wav"
    with serving(three_events, tmp_path) as (client, _):
        process = say(str(client.base_url), tmp_path, *(["-o", str(out)] if kept else []))
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == "error: the player pw-play failed with status 3\n"
    assert not kept or out.read_bytes()[-len(SPOKEN) :] == SPOKEN


def test_ctrl_c_ends_the_player_and_the_request(tmp_path: Path):
    players(tmp_path / "bin", KEEPS, "paplay")

    def endless(_request: Any) -> Iterator[dict[str, Any]]:
        while True:
            yield event(frames_of(100, 50))

    with serving(endless, tmp_path, pause_seconds=0.02) as (client, manager):
        process = say(str(client.base_url), tmp_path)
        try:
            played = tmp_path / "played"
            wait_for(lambda: played.exists() and played.stat().st_size, seconds=60)
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
        wait_for(lambda: len(manager.closed) == 1)
    size = played.stat().st_size
    time.sleep(0.2)
    assert played.stat().st_size == size
