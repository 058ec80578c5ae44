"""A release's run: parts end at their limits without loss, its tables show what was found."""

import os
import sys
from pathlib import Path

import pytest
from waiting import wait_for

from sglang_moss.benchmarks import release
from sglang_moss.benchmarks.runs.part_process import Program, run_together
from sglang_moss.benchmarks.runs.record import record
from sglang_moss.benchmarks.runs.release_parts import LINES, PARTS, Kind, Part
from sglang_moss.benchmarks.runs.release_tables import tables

pytestmark = pytest.mark.wide

RECORDS = "from pathlib import Path; from sglang_moss.benchmarks.runs.record import record; "


def program(folder: Path, name: str, code: str, limit_s: float = 120.0) -> Program:
    return Program(name, [sys.executable, "-c", code], folder / f"{name}.log", limit_s)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits only to be reaped by whoever inherited it."""
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_a_part_that_fails_or_takes_too_long_loses_nothing_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    programs = [
        program(tmp_path, "well", "print('no' + 'ise')"),
        program(tmp_path, "wrong", "raise ValueError('the reason')"),
        program(tmp_path, "late", "import time; time.sleep(3600)", limit_s=0.5),
    ]
    assert not run_together(programs)
    shown = capsys.readouterr().out
    assert "== well: status 0" in shown
    assert "== wrong: status 1" in shown
    assert "== late: stopped at its limit" in shown
    assert "the reason" in shown
    assert "noise" not in shown
    assert (tmp_path / "well.log").read_text() == "noise\n"


def test_a_stopped_part_ends_what_it_has_started(tmp_path: Path):
    code = f"""if True:
        import signal, subprocess, sys, time
        from pathlib import Path
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        try:
            Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
            time.sleep(3600)
        finally:
            child.kill()
    """
    for limit_s in (4.0, 30.0, 120.0):  # until it has got so far
        assert not run_together([program(tmp_path, "parent", code, limit_s)])
        if (tmp_path / "pid").exists():
            break
    child = int((tmp_path / "pid").read_text())
    assert child != os.getpid()
    wait_for(lambda: has_ended(child))


def test_every_part_names_a_program_and_takes_only_what_a_run_knows():
    known = dict.fromkeys(("tiny", "model", "golden", "margins", "lines", "folder", "url"), "x")
    for part in PARTS.values():
        assert (Path(release.__file__).parent / f"{part.module}.py").is_file()
        filled = part.arguments.format(**known)
        assert ("--url" in filled) == (part.kind is Kind.TIMES_SERVER)


def test_a_run_gathers_the_lines_of_its_parts_and_ends_with_their_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def command(_module: str, arguments: str) -> list[str]:
        line = {"check": "made up", "dtype": "float16", "equal": 3, "of": 4}
        return [sys.executable, "-c", f"{RECORDS}record(Path({arguments!r}), [{line!r}])"]

    part = Part("made-up", Kind.COMPARES, 60.0, "nothing", "{lines}")
    monkeypatch.setitem(PARTS, part.name, part)
    monkeypatch.setattr(release, "module_command", command)
    assert release.main(["--parts", part.name, "--folder", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1].split()[1:] == ["made", "up", "float16", "3", "4"]


def test_tables_show_what_was_compared_and_what_was_timed(tmp_path: Path):
    lines = record(
        tmp_path / LINES,
        [
            {"check": "batched = alone", "equal": 36, "of": 36},
            {"check": "ready", "seconds": 60.0},
            {"benchmark": "engine_ceiling", "concurrency": 64, "audio_s_per_s": 425.3},
            {"benchmark": "serving", "concurrency": 64, "audio_s_per_s": 401.0, "engine_ratio": 0.943, "stream": False},
        ],
    )
    compared, timed = tables([{"benchmark": "parity", **line} for line in lines]).split("\n\n")
    assert compared.splitlines()[1].split() == ["parity", "batched", "=", "alone", "36", "36"]
    assert [row.split() for row in timed.splitlines()[1:]] == [
        ["engine_ceiling", "-", "64", "425", "-"],
        ["serving", "False", "64", "401", "0.943"],
    ]


def test_a_limit_of_an_unknown_part_is_refused():
    with pytest.raises(SystemExit, match="parts are"):
        release.main(["--limit", "nothing=3"])
