"""`moss-ttsd eval`: a dataset spoken by a server and judged, results compared, and what is refused."""

import base64
import io
import json
import re
import sys

import pytest
import soundfile
from fake_speech_server import fake_speech_server
from judged_speech import DIALOGUE, RATE, clip, joined, line, write_dataset, write_speech
from typer.testing import CliRunner

from sglang_moss.clients.cli import app
from sglang_moss.evaluation.results import Result

pytestmark = pytest.mark.wide
# Without voices: what a recogniser hears in a few words is enough here, and starts in a second.
PLAIN = ["--embedder", "none"]


def run(*arguments: object):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def speech_of(samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    meta = {"audio_frames": 10, "finish_reason": {"type": "stop"}, "sampling_seed": 7}
    return json.dumps({"text": base64.b64encode(file.getvalue()).decode(), "meta_info": meta}).encode()


def test_a_dataset_is_spoken_and_judged_with_voices(tmp_path):
    dataset = write_dataset(tmp_path / "d.jsonl", [line(id="one")])
    out, report = tmp_path / "out.json", tmp_path / "out.html"
    with fake_speech_server() as fake:
        fake.answer = speech_of(joined(DIALOGUE))
        done = run("--dataset", dataset, "--url", fake.url, "--out", out, "--report", report, "--seed", 3)
    assert done.exit_code == 0, done.output
    result = Result.read(out)
    assert result.figures["acc"].value == 1
    assert result.figures["sim"].value > 0.75
    assert result.figures["wer"].value <= 0.1
    assert result.server == fake.url
    assert (result.settings["seed"], result.settings["recogniser"]) == (3, "pocketsphinx")
    assert (tmp_path / "out.audio" / "000001.wav").is_file()
    assert 'src="out.audio/000001.wav"' in report.read_text()
    [body] = fake.bodies
    assert len(body["audio_data"]) == 2
    assert re.search(r"Speaker attribution accuracy +1\.0000 +\(3 in 1 items\)", done.output)


def test_the_same_command_goes_on_and_tells_what_has_failed(tmp_path):
    texts = ["[S1] We should finish our work before lunch.", "[S1] Refused.", "[S1] Also refused."]
    dataset = write_dataset(tmp_path / "d.jsonl", [{"text": text} for text in texts])
    command = ["--dataset", dataset, "--out", tmp_path / "out.json", *PLAIN]
    with fake_speech_server() as fake:
        answer = speech_of(clip("slt_wish"))
        fake.reply = lambda body: (
            (400, b'{"error": {"message": "no"}}', {}) if "efused" in body["text"] else (200, answer, {})
        )
        first = run(*command, "--url", fake.url)
        assert first.exit_code == 1
        assert "000002: HTTP 400: no" in first.output
        assert "1 of 3 items judged" in first.output
        fake.reply = lambda _body: (200, answer, {})
        fake.bodies.clear()
        second = run(*command, "--url", fake.url)
    assert second.exit_code == 0
    assert sorted(body["text"] for body in fake.bodies) == sorted(texts[1:])
    assert Result.read(tmp_path / "out.json").n_failed == 0


def test_speech_that_is_there_is_judged_without_a_server_and_runs_are_compared(tmp_path):
    dataset = write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] We should finish our work before lunch."}] * 2)
    for folder, name in (("good", "slt_wish"), ("bad", "rms_offer")):
        for number in (1, 2):
            write_speech(tmp_path / folder, f"{number:06}", clip(name))
        done = run("--dataset", dataset, "--audio", tmp_path / folder, "--out", tmp_path / f"{folder}.json", *PLAIN)
        assert done.exit_code == 0, done.output
        assert Result.read(tmp_path / f"{folder}.json").server is None
    done = run("compare", tmp_path / "bad.json", tmp_path / "good.json")
    assert done.exit_code == 0
    assert re.search(r"Word error rate .* -1\.\d{4} .* 0\.5000  may be chance", done.output)


@pytest.mark.parametrize(("bar", "status"), [("wer<=0.1", 0), ("sound >= 1", 0), ("wer>=0.5", 1), ("acc>=0.9", 1)])
def test_a_bar_that_is_not_cleared_ends_in_1(tmp_path, bar, status):
    dataset = write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] We should finish our work before lunch."}])
    write_speech(tmp_path / "audio", "000001", joined(["slt_wish"]))
    place = ["--audio", tmp_path / "audio", "--out", tmp_path / "o.json"]
    done = run("--dataset", dataset, *place, "--require", bar, *PLAIN)
    assert done.exit_code == status, done.output
    assert (f"{bar}: " in done.output) == bool(status)


def test_limit_takes_the_first_items(tmp_path):
    dataset = write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] Hello."}] * 3)
    write_speech(tmp_path / "audio", "000001", clip("slt_wish"))
    done = run("--dataset", dataset, "--audio", tmp_path / "audio", "--out", tmp_path / "o.json", "--limit", 1, *PLAIN)
    assert done.exit_code == 0, done.output
    assert [item.id for item in Result.read(tmp_path / "o.json").items] == ["000001"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recogniser", "ear"], "there is no recogniser 'ear'; known are pocketsphinx"),
        (["--require", "loud<=1"], "takes one of wer, cer, acc, sim, sound, then <= or >=.*got 'loud<=1'"),
        (["--embedder", "wespeaker"], "--embedder-model FILE.onnx"),
        (["--out", "{tmp}/none/out.json"], "cannot be written: name a file in a folder that is there"),
        (["--audio", "{tmp}/none"], "is no folder of speech"),
        (["--dataset", "{tmp}/none.jsonl"], "No such file"),
        (["--dataset", "{tmp}"], r"error: .*d.jsonl, line 1: expected an object"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_asks_no_server(tmp_path, arguments, message):
    good = write_dataset(tmp_path / "g.json", [{"text": "[S1] Hi."}])
    (tmp_path / "d.jsonl").write_text("[]")
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    defaults = {"--dataset": good, "--out": tmp_path / "o.json", "--url": "http://127.0.0.1:9", "--embedder": "none"}
    for name, value in defaults.items():
        if name not in given:
            given += [name, str(value)]
    done = run(*given)
    assert done.exit_code == 1
    assert re.search(message, done.output)
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "o.json").exists()


def test_no_dataset_is_wrong_usage():
    assert run().exit_code == 2


def test_without_the_extra_the_command_that_brings_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    dataset = write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] Hi."}])
    done = run("--dataset", dataset, "--out", tmp_path / "o.json", *PLAIN)
    assert done.exit_code == 1
    assert "pip install 'sglang-moss[eval]'" in done.output


def test_another_file_is_not_compared(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    done = run("compare", tmp_path / "x.json", tmp_path / "x.json")
    assert done.exit_code == 1
    assert "is no result of `moss-ttsd eval`" in done.output
