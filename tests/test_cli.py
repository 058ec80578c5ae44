"""The command line `moss-ttsd`: what it writes, what it prints, and its exit status."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_speech_server import FakeServer, fake_speech_server, speech_answer, tone_wav
from typer.testing import CliRunner

from sglang_moss import __version__
from sglang_moss.clients.cli import app
from sglang_moss.clients.local_server import free_port

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_speech_server() as fake:
        yield fake


def say(server: FakeServer, out: Path, *args: str, stdin: str | None = None, **env: str):
    return CliRunner().invoke(app, ["say", *args, "-o", str(out), "--url", server.url], input=stdin, env=env)


def test_version_is_the_package_s():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"moss-ttsd {__version__}\n")


def test_say_writes_the_wav_and_prints_one_line(server: FakeServer, tmp_path: Path):
    out = tmp_path / "out.wav"
    result = say(server, out, "[S1] Hi.")
    assert result.exit_code == 0
    assert out.read_bytes() == tone_wav(5 * 1_920)
    assert re.fullmatch(rf"0\.40 s of audio, 5 frames, in \d+\.\d\d s: {re.escape(str(out))}\n", result.stdout)
    assert server.bodies == [{"text": "[S1] Hi.", "sampling_params": {}}]


def test_say_tells_when_the_speech_was_cut(server: FakeServer, tmp_path: Path):
    server.answer = json.dumps(speech_answer(5, "length")).encode()
    assert "0.40 s of audio (cut: " in say(server, tmp_path / "out.wav", "[S1] Hi.").stdout


def test_say_pairs_references_and_texts_in_order(server: FakeServer, tmp_path: Path):
    clips = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for clip in clips:
        clip.write_bytes(clip.name.encode())
    a, b = map(str, clips)
    args = ["[S1] Hi.", "--reference", a, "--reference-text", "Eins.", "--reference", b, "--reference-text", "Zwei."]
    assert say(server, tmp_path / "out.wav", *args).exit_code == 0
    assert server.bodies[0]["audio_data"] == [base64.b64encode(name).decode() for name in (b"a.wav", b"b.wav")]
    assert server.bodies[0]["text"] == "[S1]Eins.[S2]Zwei.[S1]Hi."


def test_say_sends_every_option(server: FakeServer, tmp_path: Path):
    args = "--max-seconds 2 --seed 5 --temperature 0.5 --top-p 0.6 --top-k -1 --repetition-penalty 1 --mode generation"
    assert say(server, tmp_path / "out.wav", "[S1] Hi.", *args.split()).exit_code == 0
    assert server.bodies[0]["sampling_params"] == {
        "max_new_tokens": 25,
        "sampling_seed": 5,
        "temperature": 0.5,
        "top_p": 0.6,
        "top_k": -1,
        "repetition_penalty": 1.0,
        "custom_params": {"mode": "generation"},
    }


def test_say_reads_the_text_from_standard_input(server: FakeServer, tmp_path: Path):
    assert say(server, tmp_path / "out.wav", "-", stdin="[S1] Hi.\n[S2] 你好。\n").exit_code == 0
    assert server.bodies[0]["text"] == "[S1] Hi.\n[S2] 你好。"


def test_say_takes_the_key_from_the_environment(server: FakeServer, tmp_path: Path):
    assert say(server, tmp_path / "out.wav", "[S1] Hi.", MOSS_TTSD_API_KEY="secret").exit_code == 0
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_a_refusal_is_one_line_and_status_1(server: FakeServer, tmp_path: Path):
    server.status, server.answer = 400, b'{"error": {"message": "text is missing"}}'
    result = say(server, tmp_path / "out.wav", "[S1] Hi.")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: HTTP 400: text is missing\n")
    assert not (tmp_path / "out.wav").exists()


def test_no_server_is_one_line_and_status_1(tmp_path: Path):
    url = f"http://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(app, ["say", "[S1] Hi.", "-o", str(tmp_path / "out.wav"), "--url", url])
    assert result.exit_code == 1
    assert re.fullmatch(rf"error: {url}: [^\n]+\n", result.stderr)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--reference", "a.wav", "--reference", "b.wav", "--reference-text", "x"], "got 2 references and 1 texts"),
        (["--reference-text", "x"], "got 0 references and 1 texts"),
        (["--reference", "/nowhere/a.wav"], "No such file or directory"),
        (["--max-seconds", "0.01"], "max_seconds must be"),
        (["-o", "/nowhere/out.wav"], "/nowhere/out.wav cannot be written"),
        (["-o", "/"], "/ cannot be written"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_anything_is_sent(
    server: FakeServer, tmp_path: Path, args: list[str], message: str
):
    command = ["say", "[S1] Hi.", "-o", str(tmp_path / "out.wav"), "--url", server.url, *args]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.bodies == []


@pytest.mark.parametrize("args", [["--mode", "shout"], ["--top-k", "many"], ["--nonsense"]])
def test_wrong_usage_is_status_2(server: FakeServer, tmp_path: Path, args: list[str]):
    assert say(server, tmp_path / "out.wav", "[S1] Hi.", *args).exit_code == 2


def test_ctrl_c_is_status_130_and_leaves_no_file(server: FakeServer, tmp_path: Path):
    server.waits = True
    out = tmp_path / "out.wav"
    command = [sys.executable, "-m", "sglang_moss.clients.cli", "say", "[S1] Hi.", "-o", str(out), "--url", server.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.asked.wait(60)
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    assert not out.exists()


def test_fuse_makes_a_checkpoint_and_refuses_to_replace_it(tmp_path: Path):
    out = tmp_path / "fused"
    paths = ["--model-path", str(GOLDEN / "ttsd"), "--codec-model-path", str(GOLDEN / "codec"), "--save-path", str(out)]
    first = CliRunner().invoke(app, ["fuse", *paths])
    assert (first.exit_code, first.stdout.count("\n")) == (0, 1)
    assert json.loads((out / "config.json").read_text())["architectures"] == ["MossTTSDdelayWithCodec"]
    second = CliRunner().invoke(app, ["fuse", *paths])
    assert second.exit_code == 1
    assert re.fullmatch(r"error: --save-path [^\n]+ exists: [^\n]+\n", second.stderr)
    assert CliRunner().invoke(app, ["fuse", *paths, "--overwrite"]).exit_code == 0
