"""The judge over real speech of two synthetic voices, with the back ends that bring their weights."""

import itertools

import pytest
from judged_speech import DIALOGUE, clip, joined, line, turns, write_dataset, write_speech

from sglang_moss.evaluation.dataset import read_dataset
from sglang_moss.evaluation.judge import BackEnds, Judge
from sglang_moss.evaluation.results import ItemScore
from sglang_moss.evaluation.run import Choice
from sglang_moss.evaluation.speaking import Recording

pytestmark = pytest.mark.wide
SWAPPED = ("slt_wish", "rms_question", "slt_answer")


@pytest.fixture(scope="module")
def listening() -> BackEnds:
    return Choice().load()


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
    assert all(turn.similarity > 0.85 > 0.75 > turn.similarities[3 - turn.speaker] for turn in scores["right"].turns)


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
