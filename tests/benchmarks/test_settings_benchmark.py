"""Settings beside each other: what is there is not measured again, and what is missing is, within its time."""

import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from sglang_moss.benchmarks import settings
from sglang_moss.benchmarks.runs.part_process import Program
from sglang_moss.benchmarks.runs.record import COMMIT_VARIABLE
from sglang_moss.benchmarks.runs.server_settings import SETTINGS
from sglang_moss.benchmarks.settings import LINES, main

pytestmark = pytest.mark.wide


class Server:
    """In the place of a server; remembers with which arguments one was asked for."""

    started: list[list[str]]
    paths: list[str | None]  # to import from
    url = "http://127.0.0.1:1"

    def __init__(self, _model_path: Path, *, extra_args: list[str], env: dict[str, str], **_: Any) -> None:
        self.started.append(extra_args)
        self.paths.append(env.get("PYTHONPATH"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def words_after(command: list[str], option: str) -> list[str]:
    if option not in command:
        return []
    return list(itertools.takewhile(lambda word: not word.startswith("--"), command[command.index(option) + 1 :]))


class Programs:
    """In the place of programs: writes the lines that they would."""

    def __init__(self, lines: Path) -> None:
        self.lines = lines
        self.names: list[str] = []
        self.commands: list[list[str]] = []
        self.n_first_sounds = 4  # cases that it gets to
        self.n_unkept = 0  # loads
        self.measures = True

    def run(self, programs: Iterable[Program]) -> bool:
        went_well = True
        for program in programs:
            self.names.append(program.name)
            command = list(program.command)
            self.commands.append(command)
            benchmark = command[2].rpartition(".")[2]
            found: list[dict[str, Any]] = [{"benchmark": benchmark.removeprefix("engine_")}]
            if benchmark == "first_sound":
                sizes = words_after(command, "--first-frames") or [None]
                voices_asked = words_after(command, "--voices") or ["known", "new"]
                at_once = words_after(command, "--concurrency") or ["1", "16"]
                cases = list(itertools.product(voices_asked, at_once, sizes))[: self.n_first_sounds]
                found = [
                    {"voices": voices, "concurrency": int(n), "first_frames": size and int(size)}
                    for voices, n, size in cases
                ]
            if benchmark in ("serving", "engine_ceiling"):
                stream = {"stream": "--stream" in command} if benchmark == "serving" else {}
                found = [{"concurrency": int(n), **stream} for n in words_after(command, "--concurrency")]
            if benchmark == "step_profile":
                found = [{"running": int(n), "check": "kernel"} for n in words_after(command, "--running")]
            if benchmark == "listeners" and "--most" in command:
                [offered] = words_after(command, "--most")
                self.n_unkept -= 1
                went_well = self.n_unkept < 0
                found = [{"benchmark": "listeners_load", "offered_listeners": float(offered)}, {"n_loads": 1}]
            found = [{"benchmark": benchmark, **line} for line in found]
            label = {"label": command[command.index("--label") + 1]} if "--label" in command else {}
            with self.lines.open("a") as out:
                if not self.measures:
                    continue
                out.writelines(json.dumps({**line, **label}) + "\n" for line in found)
        return went_well


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs(tmp_path / LINES)
    Server.started, Server.paths = [], []
    monkeypatch.setattr(settings, "LocalServer", Server)
    monkeypatch.setattr(settings, "run_together", made.run)
    return made


def measure(folder: Path, *arguments: str) -> int:
    made = folder / "made"
    made.mkdir(exist_ok=True)
    (made / "config.json").touch()
    return main(["--folder", str(folder), "--model-path", str(made), *arguments])


def test_nothing_is_begun_without_a_checkpoint(tmp_path: Path):
    with pytest.raises(SystemExit, match="--model-path made: no checkpoint; `random_checkpoint` makes one"):
        main(["--folder", str(tmp_path), "--model-path", "made"])
    assert list(tmp_path.iterdir()) == []


def test_every_setting_has_a_server_of_its_own_and_every_program_its_label(tmp_path: Path, programs: Programs):
    assert measure(tmp_path, "--settings", "plain", "default", "fp8-kv8") == 0
    expected = ["plain streams", "plain listeners"]
    for name in ("default", "fp8-kv8"):
        expected += [f"{name} {measure}" for measure in ("first-sound", "streams", "listeners")]
    assert programs.names == expected
    default, fp8 = Server.started
    assert "--kv-cache-dtype" not in default
    assert fp8[fp8.index("--kv-cache-dtype") + 1] == "fp8_e4m3"
    modules = [command[2].rpartition(".")[2] for command in programs.commands[:2]]
    assert modules == ["engine_ceiling", "engine_listeners"]
    labels = [command[command.index("--label") + 1] for command in programs.commands if "--label" in command]
    assert labels == ["plain", *["default"] * 3, *["fp8-kv8"] * 3]


def test_what_is_there_is_not_measured_again(tmp_path: Path, programs: Programs):
    assert measure(tmp_path, "--settings", "default", "--measures", "streams", "--concurrency", "1", "16") == 0
    assert measure(tmp_path, "--settings", "plain", "default", "--concurrency", "1", "16") == 0
    first, *others = programs.names
    assert first == "default streams"
    assert others == ["plain streams", "plain listeners", "default first-sound", "default listeners"]
    assert measure(tmp_path, "--settings", "plain", "default", "--concurrency", "1", "64") == 0
    assert programs.names[5:] == ["plain streams", "default streams"]


def test_a_table_that_was_cut_short_is_measured_again(tmp_path: Path, programs: Programs):
    programs.n_first_sounds = 1
    assert measure(tmp_path, "--settings", "default", "--measures", "first-sound") == 0
    assert measure(tmp_path, "--settings", "default", "--measures", "first-sound") == 0
    assert programs.names == ["default first-sound"] * 2


def test_other_measures_and_single_loads(tmp_path: Path, programs: Programs):
    both = ["--settings", "plain", "default", "--concurrency", "64", "--loads", "640", "704", "--measures"]
    more = [*both, "first-frames", "whole", "profile", "loads"]
    assert measure(tmp_path, *more) == 0
    titles = ["first-frames", "whole", "profile", "load 640", "load 704"]
    assert programs.names == [f"default {title}" for title in titles]
    assert measure(tmp_path, *more) == 0
    assert programs.names[len(titles) :] == []
    assert measure(tmp_path, *both, "first-sound", "streams", "listeners") == 0
    others = ["plain streams", "plain listeners", *(f"default {m}" for m in ("first-sound", "streams", "listeners"))]
    assert programs.names[len(titles) :] == others
    [server, _again] = Server.started
    [clips] = words_after(server, "--reference-root")
    assert clips == words_after(programs.commands[0], "--reference-root")[0]
    assert Path(clips).is_dir()


def test_a_load_that_is_not_kept_is_measured_and_one_that_leaves_no_line_is_not(tmp_path: Path, programs: Programs):
    one = ["--settings", "default", "--measures", "loads", "--loads", "640.5"]
    programs.n_unkept, programs.measures = 2, False
    assert measure(tmp_path, *one) == 1
    programs.measures = True
    assert measure(tmp_path, *one) == 0
    assert programs.names == ["default load 640.5"] * 2
    assert measure(tmp_path, *one) == 0
    assert len(programs.names) == 2
    assert measure(tmp_path, *one, "--total-seconds", "80", "--loads", "704") == 2  # too little for a load
    with pytest.raises(SystemExit, match="how many listeners"):
        measure(tmp_path, "--measures", "loads")


def test_a_search_that_had_no_time_is_made_again(tmp_path: Path, programs: Programs):
    lines = [{"benchmark": "listeners", "label": "default", "n_loads": n} for n in (0, 1)]
    programs.lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert measure(tmp_path, "--settings", "default", "--measures", "listeners") == 0
    assert programs.names == ["default listeners"]


def test_another_release_serves_and_its_lines_say_so(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", "/here")
    monkeypatch.setenv(COMMIT_VARIABLE, "ours")
    more = ["--settings", "default", "--measures", "streams"]
    assert measure(tmp_path, *more) == 0
    old = tmp_path / "old"
    old.mkdir()
    other = [*more, "--package", str(old), "--package-commit", "c66cf9e"]
    with pytest.raises(SystemExit, match=r"a server would import .*sglang_moss.* nevertheless"):
        measure(tmp_path, *other)  # nothing is there
    (old / "sglang_moss").mkdir()
    (old / "sglang_moss" / "__init__.py").touch()
    assert measure(tmp_path, *other) == 0
    assert programs.names == ["default streams", "default@c66cf9e streams"]
    assert Server.paths == [None, f"{old}:/here"]
    assert os.environ[COMMIT_VARIABLE] == "c66cf9e"
    with pytest.raises(SystemExit, match="plain has nothing of it"):
        measure(tmp_path, *other, "--settings", "plain", "default")
    with pytest.raises(SystemExit, match="--package and --package-commit go together"):
        measure(tmp_path, *more, "--package", str(old))


def test_without_time_nothing_is_begun_and_the_status_says_so(tmp_path: Path, programs: Programs):
    assert measure(tmp_path, "--settings", "default", "--total-seconds", "5") == 2
    assert programs.names == []
    assert Server.started == []


def test_every_setting_is_one_that_the_server_takes(fused_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a Hopper GPU, for which some of them are."""
    from argparse import ArgumentParser

    from sglang_moss import server_args
    from sglang_moss.server_args import MossServerArgs

    for found in ("is_cuda", "is_hopper_with_cuda_12_3"):
        monkeypatch.setattr(server_args, found, lambda: True)
    monkeypatch.setattr(server_args, "get_device_memory_capacity", lambda _device: 80_000)
    parser = ArgumentParser()
    MossServerArgs.add_cli_args(parser)
    for arguments in SETTINGS.values():
        parsed = parser.parse_args(["--model-path", str(fused_path), "--delay-pattern", *arguments.split()])
        assert MossServerArgs.from_cli_args(parsed).delay_pattern
