"""Datasets: our JSONL, folders of it, and what is refused."""

import json
from pathlib import Path

import pytest
from judged_speech import SPEECH, line, write_dataset

from sglang_moss.clients.batch_lines import BatchLine
from sglang_moss.evaluation.dataset import read_dataset, write_lines
from sglang_moss.evaluation.errors import CannotJudge

pytestmark = pytest.mark.wide


def test_a_line_has_turns_and_clips(tmp_path):
    [item] = read_dataset(write_dataset(tmp_path / "d.jsonl", [line(id="tv_07")]))
    assert item.id == "tv_07"
    assert item.language == "en"
    assert [turn.speaker for turn in item.turns] == [1, 2, 1]
    assert item.turns[1].words == "We should finish our work before lunch."
    assert item.clips == {1: SPEECH / "rms_reference.flac", 2: SPEECH / "slt_reference.flac"}


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hello.", [(1, "Hello.")]),
        ("[S1] A.\n[S1] B. [S2]C.", [(1, "A.B."), (2, "C.")]),
        ("${normalize_text}${instruction:Slowly}[S2] Hi.", [(2, "Hi.")]),
        ("[S1] ... [S2] Yes.", [(2, "Yes.")]),
    ],
)
def test_turns_are_those_that_are_spoken(tmp_path, text, spoken):
    [item] = read_dataset(write_dataset(tmp_path / "d.jsonl", [{"text": text}]))
    assert [(turn.speaker, turn.words) for turn in item.turns] == spoken


def test_lines_are_numbered_without_the_blank_ones_and_languages_are_told(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(
        '{"text": "[S1] Hello."}\n\n{"text": "[S1] 你好。"}\n{"text": "[S1] OK.", "language": "zh"}\n', "utf-8"
    )
    items = read_dataset(path)
    assert [(item.id, item.number, item.language) for item in items] == [
        ("000001", 1, "en"),
        ("000002", 2, "zh"),
        ("000003", 3, "zh"),
    ]


def test_clips_of_a_folder_are_relative_to_their_file(tmp_path):
    (tmp_path / "en").mkdir()
    (tmp_path / "zh").mkdir()
    write_dataset(tmp_path / "en" / "test.jsonl", [{"text": "[S1] Hi.", "prompt_audio_speaker1": "clips/a.wav"}])
    more = {"text": "[S1] 你好", "prompt_audio_speaker1": "b.wav", "base_path": "audio"}
    write_dataset(tmp_path / "zh" / "test.jsonl", [more])
    first, second = read_dataset(tmp_path)
    assert first.clips == {1: tmp_path / "en" / "clips" / "a.wav"}
    assert second.clips == {1: tmp_path / "zh" / "audio" / "b.wav"}


def test_a_shared_clip_is_kept_with_its_transcript(tmp_path):
    shared = {"text": "[S1] Hi.[S2] Ho.", "prompt_audio": "/both.wav", "prompt_text": "[S1] One. [S2] Two."}
    [item] = read_dataset(write_dataset(tmp_path / "d.jsonl", [shared]))
    assert (item.shared_clip, item.shared_text, item.clips) == (Path("/both.wav"), "[S1] One. [S2] Two.", {})
    assert [turn.words for turn in item.turns] == ["Hi.", "Ho."]


def test_what_is_written_for_a_batch_asks_for_the_same(tmp_path):
    source = write_dataset(tmp_path / "d.jsonl", [line(id="x"), {"text": "[S1] Hi.", "language": "en"}])
    items = read_dataset(source)
    write_lines(items, tmp_path / "batch.jsonl")
    written = [BatchLine.from_json(raw) for raw in (tmp_path / "batch.jsonl").read_bytes().splitlines()]
    assert written == [BatchLine.from_json(raw) for raw in source.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no line"),
        ("[1]\n", "line 1: expected an object"),
        ('{"text": "[S1] a"}\n{"text": "[S9] a"}\n', r"line 2: .*\[S1\] to \[S5\]"),
        ('{"text": "[S1] a", "language": "fr"}\n', "line 1: language: expected en or zh, got 'fr'"),
        ('{"text": "[S1] a", "id": ["x"]}\n', "line 1: id: expected a string, got list"),
        ('{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}\n', "2 lines have the id 'x'"),
        (json.dumps({"text": "a", "prompt_text_speaker1": "b"}), "prompt_audio_speaker1 is not"),
    ],
)
def test_what_cannot_be_spoken_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "d.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(CannotJudge, match=message):
        read_dataset(path)


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(CannotJudge, match=r"holds no \*\.jsonl"):
        read_dataset(tmp_path)
