"""The folder of a server's sockets: none is left behind, and no living server's is taken."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sglang_moss import socket_folder

LIVES = """
import sys, time
from sglang_moss import socket_folder
print(socket_folder.enter(), flush=True)
if sys.argv[1] == "stays":
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def start(how: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", LIVES, how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_temporary_files_lie_in_the_folder_and_go_with_it(root: Path):
    folder = socket_folder.enter()
    with tempfile.NamedTemporaryFile(delete=False) as file:
        assert Path(file.name).parent == folder
    assert [entry.name for entry in root.iterdir()] == [folder.name]
    socket_folder.remove()
    socket_folder.remove()
    assert list(root.iterdir()) == []


def test_a_process_that_ends_leaves_none(root: Path):
    process, folder = start("ends")
    assert process.wait(120) == 0
    assert folder.parent == root
    assert list(root.iterdir()) == []


def test_what_a_killed_server_left_goes_and_what_a_living_one_has_stays(root: Path):
    living, kept = start("stays")
    killed, left = start("stays")
    try:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(120)
        assert {kept, left} <= set(root.iterdir())
        mine = socket_folder.enter()
        assert set(root.iterdir()) == {kept, mine}
    finally:
        living.kill()
        living.wait(120)
        socket_folder.remove()


def test_files_of_such_a_name_are_let_alone(root: Path):
    (root / "sglang-moss-1-abc").touch()
    socket_folder.enter()
    socket_folder.remove()
    assert [entry.name for entry in root.iterdir()] == ["sglang-moss-1-abc"]


def test_a_process_has_one_folder_and_cutile_makes_its_own_in_it(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_TILE_TEMP_DIR", raising=False)
    folder = socket_folder.enter()
    assert socket_folder.enter() == folder
    assert Path(os.environ["CUDA_TILE_TEMP_DIR"]).parent == folder
    socket_folder.remove()
    assert "CUDA_TILE_TEMP_DIR" not in os.environ
    monkeypatch.setenv("CUDA_TILE_TEMP_DIR", str(root / "mine"))
    socket_folder.enter()
    socket_folder.remove()
    assert os.environ["CUDA_TILE_TEMP_DIR"] == str(root / "mine")


def test_what_is_forked_does_not_take_it_along(root: Path):
    forks = "import os\nfrom sglang_moss import socket_folder\nfolder = socket_folder.enter()\n"
    forks += "if os.fork() == 0:\n    raise SystemExit\nos.wait()\nprint(folder.is_dir())\n"
    done = subprocess.run([sys.executable, "-c", forks], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert list(root.iterdir()) == []
