"""What is told of a dataset, and the commands that make and tell it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN
from PIL import Image
from typer.testing import CliRunner, Result

from sglang_moss.clients.cli import app
from sglang_moss.training.data.inspect import Lengths, inspect_dataset, reason_of
from sglang_moss.training.rows import n_input_rows

pytestmark = pytest.mark.wide

N_VQ = 16
N_EXAMPLES = 300


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with their codes, so that no codec is needed, and some bad ones."""
    draw = np.random.default_rng(0)
    lines = []
    for i in range(N_EXAMPLES):
        speakers = 1 + i % 3
        codes = draw.integers(0, 256, (int(draw.integers(10, 400)), N_VQ))
        text = "".join(f"[S{k}] Some words. " for k in range(1, speakers + 1))
        line = {"id": f"talk {i}", "text": text, "audio_codes": codes.tolist()}
        if i % 4:
            line["language"] = "English" if i % 4 < 3 else "日本語"
        lines.append(line)
    lines += [{"id": "a", "mood": 1}, {"id": "b", "mood": 1}, {"id": "c", "audio_codes": [], "text": "a"}]
    path = tmp_path_factory.mktemp("input") / "talks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def prepare(jsonl: Path, out: Path, *more: str | Path) -> Result:
    model = ("--model-path", GOLDEN / "ttsd", "--codec-path", GOLDEN / "codec")
    return run("prepare", "--jsonl", jsonl, "--output-dir", out, *model, *more)


@pytest.fixture(scope="module")
def directory(jsonl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "talks"
    result = prepare(jsonl, out)
    assert result.exit_code == 0, result.output
    return out


def test_a_report_counts_what_is_there(jsonl, directory):
    report = inspect_dataset([directory])
    lines = [json.loads(line) for line in jsonl.read_text().splitlines()][:N_EXAMPLES]
    frames = np.array([len(line["audio_codes"]) for line in lines])
    assert report.n_examples == report.n_given_codes == N_EXAMPLES
    assert report.hours == pytest.approx(frames.sum() * 0.08 / 3600)
    assert report.seconds.percentiles[0] == pytest.approx(frames.min() * 0.08)
    assert report.seconds.percentiles[100] == pytest.approx(frames.max() * 0.08)
    assert report.seconds.mean == pytest.approx(frames.mean() * 0.08)
    assert report.speakers == {1: 100, 2: 100, 3: 100}
    assert report.languages == Counter(line.get("language", "") for line in lines)
    assert report.n_rejected == 3
    assert list(report.reasons.values()) == [2, 1]
    assert 0.9 < report.pack_fill <= 1
    assert report.padded_fill < report.pack_fill


def test_rows_are_those_that_the_model_reads(directory):
    report = inspect_dataset([directory])
    assert report.rows.percentiles[100] > report.seconds.percentiles[100] * 12.5 + N_VQ + 2
    assert n_input_rows(np.array(5), np.array(7), N_VQ) == 5 + 7 + N_VQ + 2


def test_several_directories_are_looked_at_as_one(directory, tmp_path):
    other = tmp_path / "other.jsonl"
    line = {"id": "new", "text": "a", "audio_codes": [[1] * N_VQ] * 5}
    other.write_text(json.dumps(line) + "\n" + '{"id": "bad", "mood": 1}\n')
    assert prepare(other, tmp_path / "other").exit_code == 0
    report = inspect_dataset([directory, tmp_path / "other"])
    assert (report.n_examples, report.n_rejected) == (N_EXAMPLES + 1, 4)
    assert list(report.reasons.values()) == [3, 1]


def test_the_command_prints_and_draws(directory, tmp_path):
    result = run("inspect", directory, "--plot", tmp_path / "lengths.png")
    assert result.exit_code == 0
    assert f"{N_EXAMPLES} examples, " in result.output
    assert "2 x unknown field mood" in result.output
    assert "languages   English: 150, not given: 75, 日本語: 75" in result.output
    with Image.open(tmp_path / "lengths.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 10
    as_json = json.loads(run("inspect", directory, "--json").output)
    assert as_json["n_examples"] == N_EXAMPLES
    assert not (directory / "lengths.png").exists()


def test_the_exit_status_says_whether_all_went_well(jsonl, directory, tmp_path):
    assert prepare(jsonl, directory).exit_code == 0
    strict = prepare(jsonl, directory, "--strict")
    assert strict.exit_code == 1
    assert "finished before: 300 examples" in strict.output
    refused = prepare(jsonl, directory, "--max-rows", "999")
    assert refused.exit_code == 1
    assert "was begun with something else: --max-rows" in refused.output
    missing = run("inspect", tmp_path)
    assert missing.exit_code == 1
    assert "is no dataset" in missing.output
    assert prepare(tmp_path / "none.jsonl", tmp_path / "out").exit_code == 1
    assert prepare(jsonl, tmp_path / "out", "--template", "other").exit_code == 2


def test_a_summary_is_written(jsonl, directory, tmp_path):
    path = tmp_path / "summary.json"
    assert prepare(jsonl, directory, "--summary", path).exit_code == 0
    summary = json.loads(path.read_text())
    assert (summary["n_records"], summary["n_prepared"], summary["n_rejected"]) == (303, 300, 3)
    assert summary["x_real_time"] is None  # nothing was encoded


def test_a_reason_is_free_of_particulars():
    assert reason_of("a/b.wav: there is no such file") == reason_of("c.wav: there is no such file")
    assert reason_of("clip.wav: lasts 3.5 s") == reason_of("other.wav: lasts 12 s")
    assert reason_of("unknown field mood: take out") != reason_of("unknown field colour: take out")
    assert reason_of("/data/x.wav: the clip is silent") == "the clip is silent"


def test_percentiles_are_of_values_that_are_there():
    lengths = Lengths.of(np.array([5, 1, 3]))
    assert lengths.percentiles[0] == 1
    assert lengths.percentiles[50] == 3
    assert lengths.percentiles[100] == 5
    assert str(lengths).startswith("mean 3  shortest 1")
