"""The judge over real speech of two synthetic voices, with the back ends that bring their weights."""

import itertools
import json
import random

import pytest
from judged_speech import DIALOGUE, SPEECH, Repeating, clip, joined, line, turns, write_dataset, write_speech

from sglang_moss.evaluation.aligners import load_aligner
from sglang_moss.evaluation.dataset import read_dataset
from sglang_moss.evaluation.embedders import load_embedder
from sglang_moss.evaluation.errors import CannotJudge
from sglang_moss.evaluation.judge import BackEnds, Judge, judge_all, part_of
from sglang_moss.evaluation.recognisers import load_recogniser
from sglang_moss.evaluation.results import ItemScore, Result
from sglang_moss.evaluation.run import judge_folder
from sglang_moss.evaluation.speaking import Recording, recordings_in

SWAPPED = ("slt_wish", "rms_question", "slt_answer")


def back_ends(recogniser=None, embedder=None) -> BackEnds:
    names: dict[str, str | None] = {"recogniser": "repeating", "embedder": "none", "aligner": "words"}
    return BackEnds(recogniser or Repeating(), load_aligner("words", "cpu"), embedder, names)


@pytest.fixture(scope="module")
def listening() -> BackEnds:
    return back_ends(load_recogniser("pocketsphinx", None, "cpu"), load_embedder("resemblyzer", None, "cpu"))


@pytest.fixture(scope="module")
def scores(listening, tmp_path_factory) -> dict[str, ItemScore]:
    """A dialogue as it should be, and the same script spoken with the voices swapped."""
    folder = tmp_path_factory.mktemp("judged")
    texts = {"right": DIALOGUE, "swapped": SWAPPED}
    lines = [line(names, id=name) for name, names in texts.items()]
    for name, names in texts.items():
        write_speech(folder, name, joined(names))
    # Who should speak is turned round in the script, not in the sound.
    lines[1]["text"] = lines[1]["text"].replace("[S1]", "[S3]").replace("[S2]", "[S1]").replace("[S3]", "[S2]")
    items = read_dataset(write_dataset(folder / "d.jsonl", lines))
    judge = Judge(items, listening)
    return {item.id: judge.score(item, Recording(folder / f"{item.id}.wav"), folder) for item in items}


def test_clear_speech_has_few_errors(scores):
    for score in scores.values():
        assert score.words is not None
        assert score.words.rate <= 0.1
        assert score.characters is not None
        assert score.characters.rate <= 0.1
        assert score.signal is not None
        assert score.signal.flags == []


def test_each_turn_has_its_speaker(scores):
    assert all(turn.counts and turn.is_right for turn in scores["right"].turns)
    assert all(turn.similarity > 0.75 > 0.65 > turn.similarities[3 - turn.speaker] for turn in scores["right"].turns)


def test_swapped_speakers_are_found(scores):
    assert all(turn.counts and not turn.is_right for turn in scores["swapped"].turns)
    assert scores["swapped"].turns[0].nearest == 2


def test_turns_lie_where_their_clips_are(scores):
    at = 0.1
    for name, turn in zip(DIALOGUE, scores["right"].turns, strict=True):
        seconds = len(clip(name)) / 16_000
        assert at - 0.2 <= turn.start_s < turn.end_s <= at + seconds + 0.2
        at += seconds + 0.2


def test_an_answer_does_not_depend_on_what_was_heard_before(listening):
    first, other = clip("slt_answer"), clip("rms_offer")
    once = listening.recogniser.hear(first, "en")
    listening.recogniser.hear(other, "en")
    assert listening.recogniser.hear(first, "en") == once


def test_word_times_are_in_order_within_the_clip(listening):
    samples = joined(DIALOGUE)
    words = listening.recogniser.hear(samples, "en").words
    assert len(words) == pytest.approx(sum(len(t.words.split()) for t in turns(DIALOGUE)), abs=3)
    assert all(a.start_s < a.end_s <= b.start_s + 0.02 for a, b in itertools.pairwise(words))
    assert words[-1].end_s <= len(samples) / 16_000


def test_speakers_of_a_shared_clip_are_told_apart_by_its_transcript(listening, tmp_path):
    write_speech(tmp_path, "both", joined(["rms_reference", "slt_reference"]))
    write_speech(tmp_path, "a", joined(DIALOGUE))
    text = "".join(map(str, turns(["rms_reference", "slt_reference"])))
    shared = {"text": line()["text"], "prompt_audio": str(tmp_path / "both.wav"), "prompt_text": text}
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [shared]))
    score = Judge(items, listening).score(items[0], Recording(tmp_path / "a.wav"), tmp_path)
    assert [turn.is_right for turn in score.turns] == [True] * 3


def test_a_reference_that_cannot_be_used_is_noted(listening, tmp_path):
    write_speech(tmp_path, "a", clip("slt_wish"))
    fields = line(["slt_wish"], prompt_audio_speaker1="gone.wav", prompt_audio_speaker2="https://example.com/a.wav")
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [fields]))
    score = Judge(items, listening).score(items[0], Recording(tmp_path / "a.wav"), tmp_path)
    assert score.turns[0].similarities == {}
    assert "gone.wav" in score.notes[0]
    assert "URL" in score.notes[1]


def test_what_cannot_be_heard_has_a_problem_and_no_score(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] Hi."}]))
    judge = Judge(items, back_ends())
    score = judge.score(items[0], Recording(tmp_path / "a.wav"), tmp_path)
    assert "a.wav: " in (score.problem or "")
    assert score.words is None
    assert judge.score(items[0], Recording(None, "HTTP 500: no"), tmp_path).problem == "HTTP 500: no"


def test_a_language_that_nobody_knows_is_refused_before_anything_is_heard(listening, tmp_path):
    items = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": "[S1] 你好", "id": "hao"}]))
    with pytest.raises(CannotJudge, match="language of 1 items, 'zh' in 'hao'"):
        Judge(items, listening)


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
    assert (result.figures["wer"].value, result.figures["wer"].n) == (1 / 2, 4)
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
