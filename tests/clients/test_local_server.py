"""`LocalServer` over small stand-ins for `sglang serve`: it starts, waits, tells why not, and leaves nothing behind."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from waiting import wait_for

from sglang_moss.clients import local_server
from sglang_moss.clients.local_server import LocalServer, ServerFailed
from sglang_moss.clients.start_log import IMPORTING, StartProgress

pytestmark = pytest.mark.wide

# Healthy from its third probe on; its child ignores SIGTERM; prints both process ids and what it was given.
STAND_IN = """
import http.server, os, subprocess, sys
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
print("pids", os.getpid(), child.pid)
print("arguments", *sys.argv[1:])
print("colour", os.environ.get("COLOUR"), flush=True)
probes = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        probes.append(self.path)
        self.send_response(200 if len(probes) > 2 else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def pids_in(log: Path) -> list[int]:
    line = next(line for line in log.read_text().splitlines() if line.startswith("pids "))
    return [int(pid) for pid in line.split()[1:]]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or after
        return False


def assert_gone(pids: list[int]) -> None:
    wait_for(lambda: not any(map(is_alive, pids)))


def test_it_is_ready_inside_the_block_and_gone_with_its_children_after_it(tmp_path: Path):
    bystander = subprocess.Popen(python("import time; time.sleep(99)"))
    try:
        log = tmp_path / "logs" / "server.log"
        with LocalServer("some/model", log=log, command=python(STAND_IN)) as server:
            assert httpx.get(f"{server.url}/anything", trust_env=False, timeout=60).status_code == 200
            pids = pids_in(log)
            assert all(map(is_alive, pids))
        assert_gone(pids)
        assert is_alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_the_command_gets_model_address_more_arguments_and_variables(tmp_path: Path):
    server = LocalServer(
        "some/model",
        log=tmp_path / "server.log",
        extra_args=["--context-length", "512"],
        env={"COLOUR": "green"},
        command=python(STAND_IN),
    )
    with server:
        text = server.log.read_text()
    address = f"--host 127.0.0.1 --port {server.port}"
    assert f"arguments --model-path some/model --delay-pattern {address} --context-length 512\n" in text
    assert "colour green\n" in text


def test_the_start_is_told_as_the_server_prints_it(tmp_path: Path):
    goes_on = tmp_path / "goes on"
    loads = f"import pathlib, time\nwhile not pathlib.Path({str(goes_on)!r}).exists(): time.sleep(0.01)\n"
    loads += "print('Load weight begin. avail mem=1 GB', flush=True)\n" + STAND_IN
    told: list[StartProgress] = []

    def tell(progress: StartProgress) -> None:
        told.append(progress)
        goes_on.touch()

    with LocalServer("m", log=tmp_path / "server.log", command=python(loads), on_progress=tell):
        n_told = len(told)
        # A part that lasts is told again.
        assert [part for part, _ in groupby(told, lambda progress: progress.part)] == [IMPORTING, "loading the weights"]
        assert 0 == told[0].seconds < told[-1].seconds
        time.sleep(0.5)
    assert len(told) == n_told


def test_nobody_else_is_given_the_port_of_a_server_that_starts(tmp_path: Path):
    problems: list[int | None] = []

    def take(_progress: StartProgress) -> None:
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", server.port))
            except OSError as error:
                problems.append(error.errno)

    server = LocalServer("m", log=tmp_path / "server.log", command=python(STAND_IN), on_progress=take)
    with server:
        assert problems
        assert set(problems) == {errno.EADDRINUSE}


def test_an_error_of_who_is_told_stops_the_server(tmp_path: Path):
    def tell(progress: StartProgress) -> None:
        if progress.part != IMPORTING:
            raise BrokenPipeError

    log = tmp_path / "server.log"
    loads = STAND_IN.replace("flush=True)", 'flush=True); print("Load weight begin.", flush=True)', 1)
    with pytest.raises(BrokenPipeError), LocalServer("m", log=log, command=python(loads), on_progress=tell):
        pass
    assert_gone(pids_in(log))


def test_an_error_inside_the_block_stops_the_server_and_rises(tmp_path: Path):
    log = tmp_path / "server.log"
    with pytest.raises(KeyboardInterrupt), LocalServer("m", log=log, command=python(STAND_IN)):
        raise KeyboardInterrupt
    assert_gone(pids_in(log))


def test_a_server_that_dies_is_an_error_with_the_end_of_its_log(tmp_path: Path):
    code = "import sys; [print('line', i) for i in range(100)]; sys.exit('no such model')"
    with (
        pytest.raises(ServerFailed, match="the server ended before it was ready") as caught,
        LocalServer("m", log=tmp_path / "server.log", command=python(code)),
    ):
        pass
    assert "no such model" in str(caught.value)
    assert "line 99" in str(caught.value)
    assert "line 10\n" not in str(caught.value)


def test_a_server_that_is_never_ready_is_an_error_and_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "server.log"
    began = time.monotonic()

    def monotonic() -> float:
        """Time that passes once the server has said who it is."""
        return time.monotonic() + 2.0 if "\n" in log.read_text() else began

    monkeypatch.setattr(local_server, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    code = "import os, time; print('pids', os.getpid(), flush=True); time.sleep(99)"
    with (
        pytest.raises(ServerFailed, match=r"was not ready within 2 s"),
        LocalServer("m", log=log, start_timeout_s=2.0, command=python(code)),
    ):
        pass
    assert_gone(pids_in(log))


def test_a_server_that_will_not_end_is_killed(tmp_path: Path):
    log = tmp_path / "server.log"
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAND_IN
    with LocalServer("m", log=log, stop_timeout_s=0.2, command=python(stubborn)) as server:
        pass
    assert_gone(pids_in(log))
    server.stop()  # harmless twice


def test_a_server_that_died_inside_the_block_leaves_without_an_error(tmp_path: Path):
    log = tmp_path / "server.log"
    with LocalServer("m", log=log, command=python(STAND_IN)):
        pids = pids_in(log)
        os.kill(pids[0], signal.SIGKILL)
    assert_gone(pids)


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path):
    with (
        pytest.raises(FileNotFoundError),
        LocalServer("m", log=tmp_path / "server.log", command=[str(tmp_path / "none")]),
    ):
        pass
