"""`moss-ttsd batch`: what is sent for a line, what is written, and what happens when something breaks."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_speech_server import FakeServer, fake_speech_server, speech_answer, tone_wav
from golden_data import GOLDEN, golden_arrays, golden_json
from nobody import nobody
from typer.testing import CliRunner, Result
from waiting import wait_for

from sglang_moss.audio.preparation import to_mono
from sglang_moss.clients.batch_lines import BadLine, BatchLine
from sglang_moss.clients.cli import app
from sglang_moss.clients.request import Reference, request_body
from sglang_moss.request.script import read_script

pytestmark = pytest.mark.wide

AUDIO = GOLDEN / "cases" / "audio"


def key(case: dict[str, Any]) -> str:
    return case["key"]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_speech_server() as fake:
        yield fake


def write_lines(path: Path, *lines: Any) -> None:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )


def batch_args(url: str, folder: Path, *args: str) -> list[str]:
    return ["batch", "--input-jsonl", str(folder / "in.jsonl"), "--save-dir", str(folder / "out"), "--url", url, *args]


def run(url: str, folder: Path, *args: str) -> Result:
    return CliRunner().invoke(app, batch_args(url, folder, *args))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "output.jsonl").read_text().splitlines()]


def texts(server: FakeServer) -> list[str]:
    return sorted(body["text"] for body in server.bodies)


def test_every_line_becomes_a_file_and_a_record_in_order(server: FakeServer, tmp_path: Path):
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}.", "note": i} for i in range(40)))
    result = run(server.url, tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith("40 spoken, 0 failed, 0 done before; 16.00 s of audio in ")
    assert texts(server) == sorted(f"[S1] {i}." for i in range(40))
    for i, record in enumerate(records(tmp_path)):
        path = tmp_path / "out" / f"{i + 1:06}.wav"
        expected = {"text": f"[S1] {i}.", "note": i, "id": f"{i + 1:06}", "line": i + 1, "output_audio": str(path)}
        assert record.items() >= (expected | {"duration": 0.4, "finish_reason": "stop", "sampling_seed": 7}).items()
        assert path.read_bytes() == tone_wav(5 * 1_920)


@pytest.mark.parametrize("case", [case for case in golden_json("processor/hf") if "text_normalize" in case], ids=key)
def test_the_text_of_a_request_is_the_reference_s(case: dict[str, Any]):
    raw = json.dumps(case["sample"]).encode()
    if case["key"] == "gap_speakers":
        with pytest.raises(BadLine, match="numbered from 1 without a gap"):
            BatchLine.from_json(raw, case["mode"])
        return
    line = BatchLine.from_json(raw, case["mode"], normalize=case["text_normalize"])
    references = [Reference(b"clip", words) for words in line.transcripts or [None] * len(line.clips)]
    body = request_body(line.text, references, {"mode": line.mode})
    spoken = case["message_texts"][0].partition("- Text:\n")[2].partition("\n</user_inst>")[0]
    # The reference's processor has a normaliser of its own besides, which the served model does not.
    assert read_script(body["text"]).text.replace("...", "。").replace(" ", "") == spoken.replace(" ", "")
    assert len(references) == (0 if case["mode"] == "generation" else case["speakers"])


def test_speakers_clips_are_sent_in_order_with_their_transcripts(server: FakeServer, tmp_path: Path):
    item = {"text": "[S2] Go on.", "base_path": str(AUDIO)}
    for k, name in enumerate(("spk1_24k.wav", "spk2_24k.wav", "spk3_16k.wav"), start=1):
        item |= {f"prompt_audio_speaker{k}": name, f"prompt_text_speaker{k}": f"{k}."}
    write_lines(tmp_path / "in.jsonl", item)
    assert run(server.url, tmp_path).exit_code == 0
    (body,) = server.bodies
    assert body["text"] == "[S1]1.[S2]2.[S3]3.[S2]Go on."
    assert body["sampling_params"] == {"custom_params": {"mode": "voice_clone_and_continuation"}}
    sent = [base64.b64decode(clip) for clip in body["audio_data"]]
    assert sent == [(AUDIO / name).read_bytes() for name in ("spk1_24k.wav", "spk2_24k.wav", "spk3_16k.wav")]
    (record,) = records(tmp_path)
    assert record["prompt_audio_speaker3"] == str(AUDIO / "spk3_16k.wav")
    assert "base_path" not in record


def test_a_clip_may_be_a_url_and_the_text_is_put_right(server: FakeServer, tmp_path: Path):
    url = "https://example.com/a.wav"
    line = {"text": "\ufeff[s1] We’re -5.\r\n", "prompt_audio_speaker1": url, "prompt_text_speaker1": "[S1] I’m."}
    write_lines(tmp_path / "in.jsonl", line)
    assert run(server.url, tmp_path, "--text-normalize").exit_code == 0
    assert server.bodies[0]["text"] == "${normalize_text}[S1]I'm.We're minus 5."
    assert server.bodies[0]["audio_data"] == [url]
    (record,) = records(tmp_path)
    assert record["prompt_audio_speaker1"] == url


@pytest.mark.parametrize(("data", "problem"), [(b"\xff\xfe{\0", "UTF-16"), (b"PK\3\4", "office"), (b"{\0", "binary")])
def test_an_input_that_is_no_text_is_refused_by_its_name(tmp_path: Path, data: bytes, problem: str):
    (tmp_path / "in.jsonl").write_bytes(data)
    result = run("http://127.0.0.1:1", tmp_path)
    assert result.exit_code == 1
    assert "in.jsonl: expected text" in result.stderr
    assert problem in result.stderr


def test_a_shared_clip_is_continued(server: FakeServer, tmp_path: Path):
    shared = {"prompt_audio": str(AUDIO / "spk1_24k.wav"), "prompt_text": "[S1] One.[S2] Two."}
    write_lines(tmp_path / "in.jsonl", {"text": "[S2] Go on.", **shared})
    assert run(server.url, tmp_path).exit_code == 0
    assert server.bodies[0]["text"] == "[S1]One.[S2]Two.Go on."
    assert server.bodies[0]["sampling_params"] == {"custom_params": {"mode": "continuation"}}
    assert len(server.bodies[0]["audio_data"]) == 1


def test_clips_without_transcripts_are_cloned_and_a_mode_holds_for_all_lines(server: FakeServer, tmp_path: Path):
    clip = {"prompt_audio_speaker1": str(AUDIO / "spk1_24k.wav"), "prompt_text_speaker1": " "}
    write_lines(tmp_path / "in.jsonl", {"text": "[S1] Hi.", **clip})
    assert run(server.url, tmp_path).exit_code == 0
    assert run(server.url, tmp_path, "--mode", "generation").exit_code == 0
    modes = [body["sampling_params"]["custom_params"]["mode"] for body in server.bodies]
    assert modes == ["voice_clone", "generation"]
    assert "audio_data" not in server.bodies[1]


def test_settings_are_those_of_every_line(server: FakeServer, tmp_path: Path):
    write_lines(tmp_path / "in.jsonl", {"text": "[S1] Hi... ha ha"}, {"text": "[1] Ho;"})
    options = "--text-normalize --seed 3 --max-seconds 2 --temperature 0 --top-p 0.5 --top-k 9 --repetition-penalty 1"
    assert run(server.url, tmp_path, *options.split()).exit_code == 0
    assert texts(server) == ["${normalize_text}[S1] Hi... ha ha", "${normalize_text}[S1] Ho;"]
    params = {"max_new_tokens": 25, "sampling_seed": 3, "temperature": 0.0, "top_p": 0.5, "top_k": 9}
    assert all(body["sampling_params"] == params | {"repetition_penalty": 1.0} for body in server.bodies)


def test_clips_come_at_the_lowest_rate_among_them(server: FakeServer, tmp_path: Path):
    names = ["spk2_24k.wav", "spk3_16k.wav", "spk4_44k1_stereo.wav"]
    item: dict[str, Any] = {"text": "[S1] Hi.", "base_path": str(AUDIO)}
    item |= {f"prompt_audio_speaker{k}": name for k, name in enumerate(names, start=1)}
    write_lines(tmp_path / "in.jsonl", item)
    assert run(server.url, tmp_path, "--sample-rate-normalize").exit_code == 0
    golden = golden_arrays("audio_prep/audio_prep")
    for name, clip in zip(names, server.bodies[0]["audio_data"], strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip)), always_2d=True)
        assert (rate, samples.shape[1]) == (16_000, 1)
        ours, theirs = to_mono(samples, rate, 24_000), golden[f"sr_normalized.{name}"]
        n = min(len(ours), len(theirs))
        assert abs(len(ours) - len(theirs)) <= 2
        # Another resampler: the same sound, but for the highest frequencies and the ends.
        assert np.corrcoef(ours[:n], theirs[:n])[0, 1] > 0.99


BAD_LINES = {
    "no JSON": b"{",
    "expected UTF-8, got another encoding at byte 10; save the file in UTF-8": b'{"text": "\xff"}',
    "expected an object": b"[]",
    "no JSON: maximum recursion": b"[" * 100_000,
    'with the script as a string, {"text": "[S1] ..."}': {"text": 5},
    "prompt_text_speaker2 is there, and prompt_audio_speaker2 is not": {
        "text": "[S1] Hi.",
        "prompt_audio_speaker1": "a",
        "prompt_text_speaker1": "a",
        "prompt_text_speaker2": "b",
    },
    "prompt_audio_speaker2 is there, and prompt_text_speaker2 is not": {
        "text": "[S1] Hi.",
        "prompt_audio_speaker1": "a",
        "prompt_text_speaker1": "a",
        "prompt_audio_speaker2": "b",
    },
    "speakers go from 1 to 5, got 6": {"text": "[S1] Hi.", "prompt_audio_speaker6": "a"},
    "prompt_audio_speaker1: expected a string, got int": {"text": "[S1] Hi.", "prompt_audio_speaker1": 5},
    "expected words to speak": {"text": "", "prompt_audio_speaker1": "a.wav", "prompt_text_speaker1": "Good day."},
    "prompt_text_speaker1: a transcript holds the words of [S1] only, got [S2]": {
        "text": "[S1] Hi.",
        "prompt_audio_speaker1": "a.wav",
        "prompt_text_speaker1": "[S2] Good day.",
    },
    "a clip at a URL cannot be resampled here": {
        "text": "[S1] Hi.",
        "prompt_audio_speaker1": "https://example.com/a.wav",
        "prompt_audio_speaker2": "https://example.com/b.wav",
    },
    "prompt_audio needs its prompt_text": {"text": "[S1] Hi.", "prompt_audio": "a.wav"},
    "No such file or directory": {"text": "[S1] Hi.", "prompt_audio_speaker1": "/nowhere/a.wav"},
    "null": {"text": "[S1] Hi.", "prompt_audio_speaker1": "a\0.wav"},
    "HTTP 400: text is bad": {"text": "refused"},
    "cannot be read as audio": {
        "text": "[S1] Hi.",
        "prompt_audio_speaker1": __file__,
        "prompt_audio_speaker2": __file__,
    },
}


def refusing(body: Any) -> tuple[int, bytes, dict[str, str]]:
    if body["text"] == "refused":
        return 400, b'{"error": {"message": "text is bad"}}', {}
    return 200, json.dumps(speech_answer(n_frames=5)).encode(), {}


def test_bad_lines_stop_no_other_and_are_told_with_their_numbers(server: FakeServer, tmp_path: Path):
    server.reply = refusing
    lines = [line for bad in BAD_LINES.values() for line in ({"text": "[S1] Good."}, bad)]
    write_lines(tmp_path / "in.jsonl", *lines, b"", b"  ")
    result = run(server.url, tmp_path, "--sample-rate-normalize")
    assert result.exit_code == 1
    assert f"{len(BAD_LINES)} spoken, {len(BAD_LINES)} failed" in result.stdout
    found = records(tmp_path)
    assert [record["line"] for record in found] == list(range(1, len(lines) + 1))
    for message, record in zip(BAD_LINES, found[1::2], strict=True):
        assert message in record["error"]
        assert record["output_audio"] is None
        assert f"line {record['line']}: {record['error']}\n" in result.stderr
    assert all("error" not in record for record in found[::2])


def test_a_second_run_does_only_what_is_missing_failed_or_changed(server: FakeServer, tmp_path: Path):
    server.reply = refusing
    clip = tmp_path / "clip.wav"
    clip.write_bytes(tone_wav(4_800))
    lines = [{"text": f"[S1] {i}."} for i in range(8)]
    lines[5] = {"text": "[S1] cloned.", "prompt_audio_speaker1": str(clip)}
    lines[6] = {"text": "refused"}
    write_lines(tmp_path / "in.jsonl", *lines)
    assert run(server.url, tmp_path).exit_code == 1
    server.bodies.clear()

    (tmp_path / "out" / "000002.wav").unlink()
    lines[3] = {"text": "[S1] other."}
    clip.write_bytes(tone_wav(9_600))
    lines[6] = {"text": "[S1] mended."}
    write_lines(tmp_path / "in.jsonl", *lines[:7])
    result = run(server.url, tmp_path)
    assert (result.exit_code, result.stdout[:35]) == (0, "4 spoken, 0 failed, 3 done before; ")
    assert texts(server) == ["[S1] 1.", "[S1] cloned.", "[S1] mended.", "[S1] other."]
    assert [record["text"] for record in records(tmp_path)] == [line["text"] for line in lines[:7]]
    assert run(server.url, tmp_path).stdout.startswith("0 spoken, 0 failed, 7 done before")
    assert run(server.url, tmp_path, "--seed", "1").stdout.startswith("7 spoken")


def test_a_run_that_is_killed_goes_on_where_it_stopped(server: FakeServer, tmp_path: Path):
    gate = threading.Semaphore(5)  # so many answers before the kill

    def answer(_body: Any) -> tuple[int, bytes, dict[str, str]]:
        gate.acquire()
        return 200, json.dumps(speech_answer(n_frames=5)).encode(), {}

    server.reply = answer
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}."} for i in range(12)))
    command = [sys.executable, "-m", "sglang_moss.clients", *batch_args(server.url, tmp_path, "--concurrency", "4")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output = tmp_path / "out" / "output.jsonl"
        wait_for(lambda: output.exists() and output.read_text().count("\n") == 5, seconds=60)
        wait_for(lambda: len(server.bodies) == 9, seconds=60)  # those that it waits for have come too
        refused = run(server.url, tmp_path)
        assert (refused.exit_code, "another run is writing" in refused.stderr) == (1, True)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with output.open("ab") as file:
        file.write(b'{"id": "000012", "line": 12, "fingerp')
    gate.release(1000)
    server.bodies.clear()
    result = run(server.url, tmp_path)
    assert (result.exit_code, result.stdout[:35]) == (0, "7 spoken, 0 failed, 5 done before; ")
    assert len(server.bodies) == 7
    assert [record["line"] for record in records(tmp_path)] == list(range(1, 13))
    assert all(path.read_bytes() == tone_wav(5 * 1_920) for path in (tmp_path / "out").glob("*.wav"))


def test_a_busy_server_is_asked_again(server: FakeServer, tmp_path: Path):
    busy = iter([429, 503, 429])

    def answer(_body: Any) -> tuple[int, bytes, dict[str, str]]:
        status = next(busy, 200)
        return status, json.dumps(speech_answer(n_frames=5) if status == 200 else {}).encode(), {"Retry-After": "0"}

    server.reply = answer
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}."} for i in range(4)))
    assert run(server.url, tmp_path).exit_code == 0
    assert len(server.bodies) == 7


def test_a_server_that_is_gone_ends_the_run_and_keeps_what_was_done(server: FakeServer, tmp_path: Path):
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}."} for i in range(100)))
    with nobody() as url:
        result = run(url, tmp_path, "--retries", "0", "--concurrency", "2")
    assert result.exit_code == 1
    assert result.stderr.endswith("; run the same command again to go on\n")
    assert len(records(tmp_path)) < 10
    assert run(server.url, tmp_path).stdout.startswith("100 spoken")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_gone_behind_a_proxy_ends_the_run(server: FakeServer, tmp_path: Path, status: int):
    server.status, server.answer = status, b"<html>Bad Gateway</html>"
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}."} for i in range(100)))
    result = run(server.url, tmp_path, "--retries", "0", "--concurrency", "2")
    assert result.exit_code == 1
    assert result.stderr.endswith("; run the same command again to go on\n")
    assert len(server.bodies) < 10


def test_lines_that_are_added_meanwhile_are_for_the_next_run(server: FakeServer, tmp_path: Path):
    source = tmp_path / "in.jsonl"

    def answer(_body: Any) -> tuple[int, bytes, dict[str, str]]:
        with source.open("ab") as file:
            file.write(b'{"text": "[S1] More."}\n' * 500)  # more than is read at a time
        return 200, json.dumps(speech_answer(n_frames=1)).encode(), {}

    server.reply = answer
    write_lines(source, *({"text": f"[S1] {i}." + " and on" * 300} for i in range(20)))
    result = run(server.url, tmp_path, "--concurrency", "2")
    assert (result.exit_code, result.stdout[:20]) == (0, "20 spoken, 0 failed,")
    assert [record["line"] for record in records(tmp_path)] == list(range(1, 21))


@pytest.mark.parametrize("lies", ["a pipe", "a folder"])
def test_an_input_that_cannot_be_read_twice_is_refused(server: FakeServer, tmp_path: Path, lies: str):
    source = tmp_path / "in.jsonl"
    os.mkfifo(source) if lies == "a pipe" else source.mkdir()
    result = run(server.url, tmp_path)
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {source} is no regular file: a batch reads its input twice\n",
    )


def test_the_output_of_a_run_is_not_its_input(server: FakeServer, tmp_path: Path):
    (tmp_path / "out").mkdir()
    source = tmp_path / "out" / "output.jsonl"
    write_lines(source, {"text": "[S1] Hi."})
    (tmp_path / "in.jsonl").symlink_to(source)
    before = source.read_bytes()
    result = run(server.url, tmp_path)
    assert (result.exit_code, "name another --save-dir" in result.stderr) == (1, True)
    assert (source.read_bytes(), server.bodies) == (before, [])


def test_a_key_that_is_refused_ends_the_run(server: FakeServer, tmp_path: Path):
    server.status, server.answer = 401, b'{"error": "Unauthorized"}'
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}."} for i in range(100)))
    result = run(server.url, tmp_path, "--concurrency", "1")
    assert result.exit_code == 1
    assert "error: HTTP 401: Unauthorized; give the server's key with --api-key or MOSS_API_KEY" in result.stderr
    assert len(server.bodies) == 1


def test_no_more_requests_are_under_way_than_allowed(server: FakeServer, tmp_path: Path):
    lock, all_there = threading.Lock(), threading.Event()
    under_way, most = 0, 0

    def answer(_body: Any) -> tuple[int, bytes, dict[str, str]]:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            if most == 7:
                all_there.set()
        all_there.wait(60)
        threading.Event().wait(0.05)  # in which an eighth would be seen
        with lock:
            under_way -= 1
        return 200, json.dumps(speech_answer(n_frames=1)).encode(), {}

    server.reply = answer
    write_lines(tmp_path / "in.jsonl", *({"text": f"[S1] {i}."} for i in range(30)))
    assert run(server.url, tmp_path, "--concurrency", "7").exit_code == 0
    assert most == 7


@pytest.mark.parametrize("args", [["--max-seconds", "0.01"], ["--input-jsonl", "/nowhere/in.jsonl"]])
def test_what_no_line_could_have_is_told_once(server: FakeServer, tmp_path: Path, args: list[str]):
    write_lines(tmp_path / "in.jsonl", {"text": "[S1] Hi."}, {"text": "[S1] Ho."})
    result = run(server.url, tmp_path, *args)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert server.bodies == []
