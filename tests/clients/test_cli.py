"""The command line `moss-ttsd` against the real endpoints: what it sends, writes and prints, and its exit status."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_endpoints import serving, three_events
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, STOP, FakeManager, event, frames_of
from fake_speech_server import fake_speech_server, tone_wav
from fastapi import HTTPException
from golden_data import GOLDEN
from nobody import nobody
from typer.testing import CliRunner, Result
from waiting import wait_for

from sglang_moss import __version__
from sglang_moss.clients.cli import app

pytestmark = pytest.mark.wide

SPOKEN = np.concatenate([frames_of(level) for level in (100, 200, 300)])  # by `three_events`
COMMAND = [sys.executable, "-m", "sglang_moss.clients"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, FakeManager]]:
    """Address of a server, and what stands in for its model."""
    with serving(three_events, tmp_path) as (client, manager):
        yield str(client.base_url), manager


def run(*args: str, stdin: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(app, args, input=stdin, env=env)


def samples_in(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == SAMPLE_RATE
    return samples


def test_version_is_the_package_s():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"moss-ttsd {__version__}\n")


@pytest.mark.parametrize(
    "command", ["say", "batch", "podcast", "fuse", "voices", "voices add", "data prepare", "data inspect"]
)
def test_every_command_explains_itself(command: str):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_say_writes_the_file_and_prints_one_line(service: tuple[str, FakeManager], tmp_path: Path):
    out = tmp_path / "out.wav"
    result = run("say", "[S1] Hi.", "-o", str(out), "--url", service[0])
    assert result.exit_code == 0
    np.testing.assert_array_equal(samples_in(out), SPOKEN)
    line = rf"0\.72 s of audio, first sound after \d+\.\d\d s, all after \d+\.\d\d s: {re.escape(str(out))}\n"
    assert re.fullmatch(line, result.stdout)
    assert list(tmp_path.glob("*.part")) == list(tmp_path.glob(".*.part")) == []


@pytest.mark.parametrize("suffix", ["flac", "mp3", "opus", "ogg", "aac", "m4a", "WAV"])
def test_the_suffix_says_the_format(service: tuple[str, FakeManager], tmp_path: Path, suffix: str):
    import av

    out = tmp_path / f"out.{suffix}"
    assert run("say", "Hi.", "-o", str(out), "--url", service[0]).exit_code == 0
    with av.open(str(out)) as file:
        assert suffix.lower().replace("m4a", "mp4").replace("opus", "ogg") in file.format.name
        seconds = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
    assert 0.72 <= seconds < 0.85


def test_a_dash_is_wav_on_standard_output_and_nothing_else_is(service: tuple[str, FakeManager]):
    command = [*COMMAND, "say", "-", "-o", "-", "--url", service[0]]
    done = subprocess.run(command, input=b"[S1] Hi.", capture_output=True, timeout=60, check=True)
    samples, _rate = soundfile.read(io.BytesIO(done.stdout), dtype="int16")
    np.testing.assert_array_equal(samples, SPOKEN)
    assert b"0.72 s of audio" in done.stderr


def test_say_speaks_what_is_in_a_file_or_on_standard_input(service: tuple[str, FakeManager], tmp_path: Path):
    script = tmp_path / "script.txt"
    script.write_text("[S1] Hi.\n[S2] 你好。\n", encoding="utf-8")
    out = ["-o", str(tmp_path / "out.wav"), "--no-normalize", "--url", service[0]]
    assert run("say", "--file", str(script), *out).exit_code == 0
    assert run("say", "-", *out, stdin="[S1] Hi.\n[S2] 你好。\n").exit_code == 0
    assert [request.text for request in service[1].requests] == ["[S1] Hi.\n[S2] 你好。"] * 2


def test_say_sends_every_option(service: tuple[str, FakeManager], tmp_path: Path):
    options = "--max-seconds 2 --seed 5 --temperature 0.5 --top-p 0.6 --top-k -1 --repetition-penalty 1"
    args = [*options.split(), "--mode", "generation", "--instruction", "Slowly."]
    assert run("say", "[S1] Hi.", "-o", str(tmp_path / "out.wav"), "--url", service[0], *args).exit_code == 0
    request = service[1].requests[0]
    assert request.text == "${normalize_text}${instruction:Slowly.}[S1] Hi."
    assert request.sampling_params == {
        "max_new_tokens": 25,
        "sampling_seed": 5,
        "temperature": 0.5,
        "top_p": 0.6,
        "top_k": -1,
        "repetition_penalty": 1.0,
        "custom_params": {"mode": "generation", "strict": True},
    }


def test_say_tells_when_the_speech_was_cut(service: tuple[str, FakeManager], tmp_path: Path):
    result = run("say", "Hi.", "-o", str(tmp_path / "out.wav"), "--url", service[0], "--max-seconds", "0.72")
    assert "0.72 s of audio (cut by --max-seconds)" in result.stdout


def test_stored_voices_and_clips_are_mixed(service: tuple[str, FakeManager], tmp_path: Path):
    url, manager = service
    for name in ("alice", "bob"):
        (tmp_path / f"{name}.wav").write_bytes(tone_wav(SAMPLE_RATE + len(name)))
    add = run("voices", "add", "alice", str(tmp_path / "alice.wav"), "--text", "Eins.", "--url", url)
    assert (add.exit_code, add.stdout) == (0, "alice: 1.00 s\n")
    clip = ["--reference", str(tmp_path / "bob.wav"), "--reference-text", "Zwei."]
    say = ["say", "[S1] Hi.", "-o", str(tmp_path / "out.wav"), "--url", url, *clip]
    assert run(*say, "--voice", "S2=alice").exit_code == 0
    assert run(*say, "--voice", "s1=alice").exit_code == 0
    assert [request.text for request in manager.requests] == [
        "${normalize_text}[S1]Zwei.[S2]Eins.[S1]Hi.",
        "${normalize_text}[S1]Eins.[S2]Zwei.[S1]Hi.",
    ]
    assert manager.requests[0].audio_data[::-1] == manager.requests[1].audio_data


def test_voices_are_listed_and_removed(service: tuple[str, FakeManager], tmp_path: Path):
    url = ["--url", service[0]]
    (tmp_path / "a.wav").write_bytes(tone_wav(SAMPLE_RATE))
    run("voices", "add", "Dr. No", str(tmp_path / "a.wav"), *url)
    run("voices", "add", "alice", str(tmp_path / "a.wav"), "--text", "Good morning.", *url)
    listed = run("voices", "list", *url)
    assert listed.stdout == ("alice\t1.00 s\tGood morning.\nDr. No\t1.00 s\t(not transcribed: cannot be continued)\n")
    taken = run("voices", "add", "alice", str(tmp_path / "a.wav"), *url)
    assert (taken.exit_code, taken.stderr[:16]) == (1, "error: HTTP 409:")
    assert run("voices", "remove", "Dr. No", *url).exit_code == 0
    assert run("voices", "list", *url).stdout.splitlines() == ["alice\t1.00 s\tGood morning."]
    gone = run("voices", "remove", "Dr. No", *url)
    assert (gone.exit_code, gone.stderr[:16]) == (1, "error: HTTP 404:")


def test_the_key_comes_from_the_environment(tmp_path: Path):
    with fake_speech_server() as fake:
        fake.status, fake.answer = 401, b'{"error": "Unauthorized"}'
        result = run("say", "Hi.", "-o", str(tmp_path / "out.wav"), "--url", fake.url, MOSS_API_KEY="secret")
    assert fake.headers[0]["authorization"] == "Bearer secret"
    assert result.exit_code == 1
    assert result.stderr == "error: HTTP 401: Unauthorized; --api-key or MOSS_API_KEY gives it\n"


def test_a_refusal_is_one_line_and_status_1(service: tuple[str, FakeManager], tmp_path: Path):
    out = tmp_path / "out.wav"
    result = run("say", "Hi.", "-o", str(out), "--voice", "S1=nobody", "--url", service[0])
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: HTTP 400: [^\n]*nobody[^\n]*\n", result.stderr)
    assert not out.exists()


def test_speech_that_breaks_off_leaves_the_file_that_was_there(tmp_path: Path):
    def script(_request: Any) -> Iterator[Any]:
        yield event(frames_of(100))
        yield HTTPException(503, "the codec is gone")

    out = tmp_path / "out.wav"
    out.write_bytes(b"before")
    with serving(script, tmp_path) as (client, _manager):
        result = run("say", "Hi.", "-o", str(out), "--url", str(client.base_url))
    assert result.exit_code == 1
    assert "the codec is gone" in result.stderr
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.wav"]


def test_no_server_is_one_line_and_status_1(tmp_path: Path):
    with nobody() as url:
        result = run("say", "[S1] Hi.", "-o", str(tmp_path / "out.wav"), "--url", url)
    assert result.exit_code == 1
    assert re.fullmatch(rf"error: {url}: [^\n]+ is the server running there\? [^\n]*MOSS_URL[^\n]*\n", result.stderr)


@pytest.mark.parametrize("way", ["--url", "MOSS_URL"])
@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_is_an_option_or_a_variable_with_or_without_v1(
    service: tuple[str, FakeManager], way: str, suffix: str
):
    url = service[0].rstrip("/") + suffix
    result = run("voices", "list", "--url", url) if way == "--url" else run("voices", "list", MOSS_URL=url)
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize("command", ["", "say", "batch", "podcast", "fuse", "voices", "voices get"])
def test_help_has_a_short_name(command: str):
    result = run(*command.split(), "-h")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_shells_can_complete():
    assert "--install-completion" in run("--help").stdout


@pytest.mark.parametrize("name", ["alice", "小明"])
def test_a_voice_is_shown_fetched_and_replaced(service: tuple[str, FakeManager], tmp_path: Path, name: str):
    url = ["--url", service[0]]
    for i, text in enumerate(["Eins.", "Zwei."]):
        (tmp_path / f"{i}.wav").write_bytes(tone_wav(SAMPLE_RATE * (1 + i)))
        done = run("voices", "replace", name, str(tmp_path / f"{i}.wav"), "--text", text, *url)
        assert (done.exit_code, done.stdout) == (0, f"{name}: {1 + i}.00 s\n")
        assert run("voices", "show", name, *url).stdout == f"{name}\t{1 + i}.00 s\t{text}\n"
        assert run("voices", "get", name, "-o", str(tmp_path / "got"), *url).exit_code == 0
        assert (tmp_path / "got").read_bytes() == (tmp_path / f"{i}.wav").read_bytes()
        assert run("voices", "get", name, "-o", "-", *url).stdout_bytes == (tmp_path / f"{i}.wav").read_bytes()
    missing = run("voices", "get", "nobody", "-o", str(tmp_path / "none"), *url)
    assert (missing.exit_code, missing.stderr[:16]) == (1, "error: HTTP 404:")
    assert not (tmp_path / "none").exists()


def test_a_reader_that_has_enough_ends_the_command_quietly(service: tuple[str, FakeManager], tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(tone_wav(SAMPLE_RATE))
    for i in range(5):
        run("voices", "add", f"v{i}", str(tmp_path / "a.wav"), "--text", "a" * 9_000, "--url", service[0])
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "voices", "list", "--url", service[0]]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_say_tells_when_the_model_did_not_come_to_an_end(tmp_path: Path):
    script = [event(frames_of(100)), event(frames_of(200), {"type": "length"})]
    with serving(lambda _: script, tmp_path) as (client, _manager):
        result = run("say", "Hi.", "-o", str(tmp_path / "out.wav"), "--url", str(client.base_url))
    assert "0.48 s of audio (cut: far longer than its text suggests; --max-seconds allows more)" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--reference", "a.wav", "--reference", "b.wav", "--reference-text", "x"], "got 2 references and 1 texts"),
        (["--reference-text", "x"], "got 0 references and 1 texts"),
        (["--reference", "/nowhere/a.wav"], "No such file or directory"),
        (["-o", "/nowhere/out.wav"], "/nowhere/out.wav cannot be written"),
        (["-o", "/"], "/ cannot be written: it is a folder"),
        (["-o", "out.doc"], "out.doc: the suffix says the format; known are .wav, .mp3"),
        (["--url", "localhost:1"], "the server's URL must be like"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_anything_is_sent(
    service: tuple[str, FakeManager], tmp_path: Path, args: list[str], message: str
):
    result = run("say", "[S1] Hi.", "-o", str(tmp_path / "out.wav"), "--url", service[0], *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert service[1].requests == []


@pytest.mark.parametrize(
    "args",
    [
        ["Hi.", "-o", "out.wav", "--mode", "shout"],
        ["Hi.", "-o", "out.wav", "--top-k", "many"],
        ["Hi.", "-o", "out.wav", "--nonsense"],
        ["Hi."],
        ["-o", "out.wav"],
        ["Hi.", "--file", "script.txt", "-o", "out.wav"],
        ["Hi.", "-o", "out.wav", "--voice", "alice"],
        ["Hi.", "-o", "out.wav", "--voice", "S6=alice"],
        ["Hi.", "-o", "out.wav", "--voice", "S1=alice", "--voice", "S1=bob"],
        ["Hi.", "-o", "out.wav", "--voice", "S2=bob"],
        ["Hi.", "-o", "out.wav", "--voice", "S3=bob", "--reference", "a.wav"],
    ],
)
def test_wrong_usage_is_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]):
    monkeypatch.chdir(tmp_path)
    assert run("say", *args).exit_code == 2


@pytest.mark.parametrize("args", [[], ["-o", "out.wav"], ["--play"]])
def test_the_script_is_asked_for_first(args: list[str]):
    result = run("say", *args)
    assert result.exit_code == 2
    assert "give the script as TEXT or with --file FILE" in result.output


def test_ctrl_c_ends_the_request_and_leaves_no_file(tmp_path: Path):
    def endless(_request: Any) -> Iterator[dict[str, Any]]:
        while True:
            yield event(frames_of(100))

    folder = tmp_path / "out"
    folder.mkdir()
    with serving(endless, tmp_path, pause_seconds=0.05) as (client, manager):
        command = [*COMMAND, "say", "[S1] Hi.", "-o", str(folder / "out.wav"), "--url", str(client.base_url)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: list(folder.iterdir()), seconds=60)
            assert manager.closed == []
            os.kill(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
        assert list(folder.iterdir()) == []
        wait_for(lambda: len(manager.closed) == 1)


def test_the_file_grows_while_it_is_spoken(tmp_path: Path):
    goes_on: list[bool] = []

    def script(_request: Any) -> Iterator[dict[str, Any]]:
        yield event(frames_of(100, 25))
        while not goes_on:
            time.sleep(0.01)
            yield event(frames_of(100, 1))
        yield event(frames_of(300), STOP)

    out = tmp_path / "out.wav"
    with serving(script, tmp_path, pause_seconds=0.02) as (client, _manager):
        process = subprocess.Popen([*COMMAND, "say", "Hi.", "-o", str(out), "--url", str(client.base_url)])
        try:
            wait_for(lambda: any(path.stat().st_size > FRAME_SAMPLES for path in tmp_path.glob(".*.part")), seconds=60)
            assert not out.exists()
            goes_on.append(True)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert samples_in(out)[-1] == 300


def test_fuse_makes_a_checkpoint_and_refuses_to_replace_it(tmp_path: Path):
    out = tmp_path / "fused"
    paths = ["--model-path", str(GOLDEN / "ttsd"), "--codec-model-path", str(GOLDEN / "codec"), "--save-path", str(out)]
    first = run("fuse", *paths)
    assert (first.exit_code, first.stdout.count("\n")) == (0, 1)
    assert json.loads((out / "config.json").read_text())["architectures"] == ["MossTTSDdelayWithCodec"]
    second = run("fuse", *paths)
    assert second.exit_code == 1
    assert re.fullmatch(r"error: --save-path [^\n]+ exists: [^\n]+\n", second.stderr)
    assert run("fuse", *paths, "--overwrite").exit_code == 0
