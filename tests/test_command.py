"""The program `moss-ttsd`: `serve` before anything dear is imported, and the other commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sglang.cli.main

from sglang_moss import command
from sglang_moss.clients.local_server import free_port
from sglang_moss.command_line import FLAG

PROGRAM = [sys.executable, "-m", "sglang_moss.command"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"}
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no nowhere"),
        (["--port", "1", "--model-path=nowhere", FLAG], "there is no nowhere"),
        ([], "which model"),
    ],
)
def test_what_cannot_work_is_one_sentence(words: list[str], said: str):
    done = run("serve", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert said in done.stderr


def test_it_is_told_before_anything_dear_is_imported():
    dear = "{'torch', 'sglang', 'transformers', 'httpx', 'typer', 'numpy'}"
    code = f"import sys, sglang_moss.command; print(sorted({dear} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("flag", [[], [FLAG]])
def test_sglang_gets_the_arguments_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: list[str]):
    (tmp_path / "config.json").write_text('{"architectures": ["MossTTSDelayWithCodec"]}')
    (tmp_path / "model.safetensors").touch()
    words = [str(tmp_path), "--port", str(free_port()), *flag, "--voices-dir", str(tmp_path), "--tp-size", "2"]
    called: list[list[str]] = []
    monkeypatch.setattr(sglang.cli.main, "main", lambda: called.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["moss-ttsd", "serve", *words])
    command.main()
    assert called == [["serve", *words] if flag else ["serve", *words, FLAG]]


def test_it_stands_beside_the_other_commands():
    assert "serve" in run("--help").stdout
    assert "Directory of a fused checkpoint" in run("serve", "--help").stdout
    assert run("--version").stdout.startswith("moss-ttsd ")
