"""What the judge keeps, does again, and tells: with a recogniser that hears what a test says."""

import json
import random

import pytest
from judged_speech import SPEECH, Repeating, clip, write_dataset, write_speech

from sglang_moss.evaluation.aligners import load_aligner
from sglang_moss.evaluation.dataset import read_dataset
from sglang_moss.evaluation.errors import CannotJudge
from sglang_moss.evaluation.judge import BackEnds, Judge, judge_all, part_of
from sglang_moss.evaluation.results import Result
from sglang_moss.evaluation.run import judge_folder
from sglang_moss.evaluation.speaking import Recording, recordings_in

pytestmark = pytest.mark.wide


def back_ends(recogniser=None, embedder=None) -> BackEnds:
    names: dict[str, str | None] = {"recogniser": "repeating", "embedder": "none", "aligner": "words"}
    return BackEnds(recogniser or Repeating(), load_aligner("words", "cpu"), embedder, names)


def test_what_cannot_be_heard_has_a_problem_and_no_score(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] Hi."}]))
    judge = Judge(items, back_ends())
    score = judge.score(items[0], Recording(tmp_path / "a.wav"), tmp_path)
    assert "a.wav: " in (score.problem or "")
    assert score.words is None
    assert judge.score(items[0], Recording(None, "HTTP 500: no"), tmp_path).problem == "HTTP 500: no"


def test_a_language_that_nobody_knows_is_refused_before_anything_is_heard(tmp_path):
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] 你好", "id": "hao"}]))
    with pytest.raises(CannotJudge, match="language of 1 items, 'zh' in 'hao'"):
        Judge(items, back_ends(Repeating("", "en")))


@pytest.fixture
def three(tmp_path):
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": f"[S1] Number {k}."} for k in range(3)]))
    for item in items:
        write_speech(tmp_path / "audio", item.id, clip("slt_wish"))
    return items


def test_a_run_that_was_broken_off_goes_on(tmp_path, three):
    out = tmp_path / "result.json"
    recordings = recordings_in(tmp_path / "audio", three)
    first = Repeating("number")
    judge_all(Judge(three, back_ends(first)), three[:2], recordings[:2], out, lambda: None)
    with part_of(out).open("a") as file:
        file.write('{"fingerprint": "x", "sco')  # killed while writing
    second = Repeating("number")
    scores = judge_all(Judge(three, back_ends(second)), three, recordings, out, lambda: None)
    assert (first.n_heard, second.n_heard) == (2, 1)
    assert [score.id for score in scores] == [item.id for item in three]
    assert all(json.loads(line) for line in part_of(out).read_text().splitlines())


@pytest.mark.parametrize("change", ["speech", "text", "version", "aligner"])
def test_what_has_changed_is_judged_again(tmp_path, three, change):
    out = tmp_path / "result.json"
    judge_all(Judge(three, back_ends()), three, recordings_in(tmp_path / "audio", three), out, lambda: None)
    again = Repeating()
    listening = back_ends(again)
    changed = 3
    if change == "speech":
        write_speech(tmp_path / "audio", three[1].id, clip("slt_answer"))
        changed = 1
    elif change == "text":
        lines = [{"text": f"[S1] Number {k}."} for k in range(2)] + [{"text": "[S1] Another."}]
        three = read_dataset(write_dataset(tmp_path / "d.jsonl", lines))
        changed = 1
    elif change == "version":
        again.versions = {"repeating": "2"}
    else:
        listening.names["aligner"] = "mms"
    judge_all(Judge(three, listening), three, recordings_in(tmp_path / "audio", three), out, lambda: None)
    assert again.n_heard == changed


def test_a_result_has_every_item_and_what_it_was_made_with(tmp_path, three):
    (tmp_path / "audio" / "000002.wav").unlink()
    out = tmp_path / "result.json"
    result = judge_folder(
        three, tmp_path / "audio", back_ends(Repeating("number zero")), out,
        dataset="d", server=None, settings={"seed": 1},
    )  # fmt: skip
    assert result == Result.read(out)
    assert [item.problem for item in result.items] == [None, "there is no speech of it", None]
    assert result.n_failed == 1
    assert result.items[0].audio == "audio/000001.wav"
    assert (result.figures["wer"].value, result.figures["wer"].n) == (
        1 / 4,
        4,
    )  # "number 0", as zero is written, for "number 2"
    assert {"repeating", "jiwer", "scipy", "python", "sglang-moss"} <= result.versions.keys()
    assert result.settings["seed"] == 1
    assert not part_of(out).exists()


def test_speech_is_found_by_id_by_number_and_by_any_suffix(tmp_path):
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": "a", "id": "x"}, {"text": "b"}, {"text": "c"}]))
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in ("x.wav", "000001.wav", "000002.flac"):
        (folder / name).touch()
    records = [{"line": 2, "finish_reason": "length"}, {"line": 3, "error": "HTTP 400: no"}]
    random.Random(0).shuffle(records)
    (folder / "output.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"line')
    first, second, third = recordings_in(folder, items)
    assert first == Recording(folder / "x.wav")
    assert second.path == folder / "000002.flac"
    assert "greatest length" in second.notes[0]
    assert third == Recording(None, "HTTP 400: no")


def test_a_folder_without_any_of_the_speech_is_refused(tmp_path):
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": "a", "id": "x"}]))
    with pytest.raises(CannotJudge, match=r"x\.wav or 000001\.wav"):
        recordings_in(tmp_path, items)
    with pytest.raises(CannotJudge, match="no folder"):
        recordings_in(SPEECH / "none", items)
