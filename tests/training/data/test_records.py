"""Records: lines of every form become one thing, and what is wrong with one is told by its field."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.template import FIELDS
from sglang_moss.training.data.checks import check_pace, check_record, clipping_warning, n_speakers
from sglang_moss.training.data.errors import BadRecord
from sglang_moss.training.data.inputs import Line, digest, lines_of
from sglang_moss.training.data.reading import ReadingRules, read_lines, resolve
from sglang_moss.training.data.records import Record, read_record

pytestmark = pytest.mark.wide

RAW = [json.loads(line) for line in (GOLDEN / "finetune" / "raw.jsonl").read_text().splitlines()]
PREPARED = [json.loads(line) for line in (GOLDEN / "finetune" / "prepared.jsonl").read_text().splitlines()]
CODES = [[1, 2, 3], [4, 5, 6]]


def record(**fields: Any) -> Record:
    return read_record(fields)


def refused(sentence: str, **fields: Any) -> None:
    with pytest.raises(BadRecord, match=sentence):
        read_record(fields)


def unfit(sentence: str, **fields: Any) -> None:
    with pytest.raises(BadRecord, match=sentence):
        check_record(read_record({"audio": "a.wav", **fields}), frozenset({"<|im_end|>"}))


def fit(**fields: Any) -> Record:
    found = read_record({"audio": "a.wav", **fields})
    check_record(found, frozenset({"<|im_end|>"}))
    return found


@pytest.mark.parametrize("line", RAW, ids=lambda line: line["id"])
def test_upstreams_records_are_read_as_they_are(line):
    found = read_record(line)
    check_record(found, frozenset())
    assert found.id == line["id"]
    assert found.fields == {name: line[name] for name in FIELDS if name in line}
    assert found.targets == (line["audio"],)
    clips = line.get("reference", line.get("reference_audio", line.get("ref_audio")))
    assert found.references == (None if clips is None else (clips,) if isinstance(clips, str) else tuple(clips))


@pytest.mark.parametrize("line", PREPARED, ids=lambda line: line["id"])
def test_upstreams_prepared_records_keep_their_codes(line):
    found = read_record(line)
    assert (found.targets, found.clips) == ((), [])
    assert found.codes is not None
    assert found.codes.tolist() == line["audio_codes"]
    given = line.get("reference_audio_codes", line.get("ref_audio_codes"))
    if given is None:
        assert found.references is None
    else:
        listed = [given] if "ref_audio_codes" in line else given
        assert [one if one is None else one.tolist() for one in found.references or ()] == listed


def test_a_transcript_is_a_text():
    found = record(file_path="a.wav", full_transcript="[S1] Hi. [S2] Ho.")
    assert found == Record(None, {"text": "[S1] Hi. [S2] Ho."}, ("a.wav",), None, None, "transcript")
    refused("full_transcript is missing", file_path="a.wav")
    refused("file_path is missing", full_transcript="a")
    refused("unknown field audio", file_path="a.wav", full_transcript="a", audio="a.wav")


def test_a_pair_is_one_target():
    found = record(reference_audio="r.wav", reference_text="[S1] One.", audio="a.wav", text="[S2] Two.")
    assert found == Record(None, {"text": "[S1] One.[S2] Two."}, ("r.wav", "a.wav"), None, None, "pair")
    refused("reference_audio is missing", reference_text="a", audio="a.wav", text="b")
    refused("unknown field language", reference_audio="r", reference_text="a", audio="a", text="b", language="English")


def test_prompts_of_inference_are_references():
    found = record(
        base_path="clips",
        audio="a.wav",
        text="[S1] Hi. [S3] Ho.",
        prompt_audio_speaker1="1.wav",
        prompt_text_speaker1="[S1] Good morning.",
        prompt_audio_speaker3="/3.wav",
        prompt_text_speaker3="Good night.",
    )
    assert found.references == ("clips/1.wav", None, "/3.wav")
    assert (found.targets, found.fields) == (("clips/a.wav",), {"text": "[S1] Hi. [S3] Ho."})
    assert record(base_path="", audio="a.wav", text="a").references is None
    refused("go from 1 to 5", audio="a.wav", text="a", prompt_audio_speaker6="6.wav")
    refused("audio is missing, expected the clip to learn", text="a", prompt_audio_speaker1="1.wav")
    refused("unknown field prompt_video_speaker1", audio="a.wav", prompt_video_speaker1="1", base_path="c")


def test_a_shared_prompt_is_the_beginning_of_the_target():
    found = record(base_path="c", audio="a.wav", text="[S1] Hi.", prompt_audio="p.wav", prompt_text="[S1] A.[S2] B.")
    assert found == Record(None, {"text": "[S1] A.[S2] B.[S1] Hi."}, ("c/p.wav", "c/a.wav"), None, None, "shared")
    refused("prompt_text is missing", audio="a.wav", text="a", prompt_audio="p.wav")


def test_unknown_fields_are_named_or_passed_over():
    refused("unknown fields colour, taste: take out", audio="a.wav", colour=1, taste=2)
    assert read_record({"audio": "a.wav", "colour": 1}, ignore_unknown=True).fields == {}


def test_null_is_absent():
    assert record(audio="a.wav", text=None, tokens=None, reference=None) == record(audio="a.wav")


def test_fields_of_another_type_are_refused():
    for name in ("text", "instruction", "quality", "sound_event", "ambient_sound", "language", "audio"):
        refused(f"{name}: expected a string, got int", **{"audio": "a.wav", name: 3})
    for tokens in ("7", 7.0, True, 0, 2**31):
        refused("tokens: expected a positive integer", audio="a.wav", tokens=tokens)
    refused("audio is missing", text="a")
    refused("audio: expected the path of a clip", audio=" ")
    for name in ("reference", "reference_audio"):
        for value in (3, [3], [""], [["a"]], ""):
            refused(f"{name}: expected paths", audio="a.wav", **{name: value})
    refused("reference_audio: expected paths", audio="a.wav", reference_audio=["a", None])
    refused("ref_audio: expected a path", audio="a.wav", ref_audio=["a"])
    refused("reference and ref_audio say the same", audio="a.wav", reference=["a"], ref_audio="a")
    refused("id: expected", audio="a.wav", id=[1])
    assert record(audio="a.wav", id=7).id == "7"


def test_codes_of_another_shape_are_refused():
    for codes in ([], [[]], [1], [[1], [1, 2]], [[1.5]], "codes", {}, [[True]], [[2**70]], [[[1]]]):
        refused("audio_codes: expected a list of frames", audio_codes=codes)
    assert record(audio_codes=CODES, ref_audio_codes=CODES).references is not None
    refused("list different speakers", audio_codes=CODES, reference=["a", None], reference_audio_codes=[None, CODES])
    refused("expected lists of codes", audio_codes=CODES, reference_audio_codes=[])
    assert record(audio_codes=CODES, reference=["a", None]).references == ("a", None)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<speaker1>Hi.<speaker2>Ho.", "[S1]Hi.[S2]Ho."),
        (" [1] Hi. [2] Ho [9].", " [S1] Hi. [S2] Ho [9]."),
        ("[S1] as in [1]", "[S1] as in [1]"),
        ("See [1].", "See [1]."),
    ],
)
def test_old_tags_become_new_ones(written, read):
    assert record(audio="a.wav", text=written).fields["text"] == read
    assert record(file_path="a.wav", full_transcript=written).fields["text"] == read


def test_words_that_no_request_could_have_are_refused():
    unfit("no letter and no digit", text="[S1] ...")
    unfit("speaker tags go from", text="[S6] Hi.")
    unfit("text: <.im_end.> is a control token", text="a<|im_end|>")
    unfit("instruction: .* is a control token", text="a", instruction="a<|im_end|>")
    unfit("half of a surrogate pair", text="a\ud800")
    fit(ambient_sound="rain")


def test_references_fit_the_text():
    unfit(r"reference 2 is the voice of \[S2\], who does not speak", text="[S1] Hi.", reference=["a", "b"])
    unfit("reference 2 is the voice", text="Hi.", reference=["a", "b"])
    unfit(r"the text has \[S2\] and there are 1 references: write null", text="[S1] a [S2] b", ref_audio="a")
    unfit("at most 5 references", text="[S1] a", reference=[None] * 6)
    assert n_speakers(fit(text="Hi.", ref_audio="a")) == 1
    assert n_speakers(fit(text="[S2] a [S3] b", reference=[None, "b", None])) == 2
    assert n_speakers(fit(text="[S1] a [S2] b", reference=[])) == 2
    assert n_speakers(fit(ambient_sound="rain")) == 0
    assert n_speakers(fit(text="[S1] a", reference=[None, None])) == 1


def test_text_is_held_against_the_clip():
    text = {"text": "[S1] " + "word " * 100}  # 500 letters take 39 s
    with pytest.raises(BadRecord, match=r"505 characters in 2.00 s is 19.\d times the pace"):
        check_pace(text, 2.0)
    assert "times the pace of speech" in (check_pace(text, 5.0) or "")
    assert check_pace(text, 38.0) is None
    assert "times as long as speech takes" in (check_pace(text, 400.0) or "")
    assert check_pace({}, 0.1) is None
    assert check_pace(text, 2.0, max_pace=30.0) is not None
    assert clipping_warning(0.001) is None
    assert "1.0 % of the samples" in (clipping_warning(0.01) or "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
_OTHER_NAMES = """
    id audio reference ref_audio reference_audio audio_codes ref_audio_codes reference_audio_codes file_path
    full_transcript reference_text prompt_audio prompt_text prompt_audio_speaker1 base_path other"""
names = st.sampled_from([*FIELDS, *_OTHER_NAMES.split()])


@given(st.dictionaries(names, json_values, max_size=6))
def test_any_object_is_a_record_or_refused_with_a_sentence(content):
    try:
        found = read_record(content)
        check_record(found, frozenset())
    except BadRecord:
        return
    assert found.targets or found.codes is not None


def rules(**changes: Any) -> ReadingRules:
    given = {"normalizer": "none", "ignore_unknown": False, "n_vq": 2, "codebook_size": 8}
    return ReadingRules(**{**given, "special_strings": frozenset(), **changes})


def read(path: Path, *lines: Any, **changes: Any) -> list[tuple[str, Any]]:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return [(one.id, one.problem or one.record) for one in read_lines([path], rules(**changes))]


def test_bad_lines_stop_no_other(tmp_path):
    found = read(tmp_path / "in.jsonl", "{", "", "[1]", {"audio": "a.wav"}, '{"a": ' + "[" * 100_000)
    assert [name for name, _ in found] == ["in-1", "in-3", "in-4", "in-5"]
    assert [str(what)[:10] for _, what in found if isinstance(what, str)] == ["no JSON: E", "expected a", "no JSON: m"]
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\n{"audio": "\xff"}\n')
    assert [one.problem for one in read_lines([tmp_path / "in.jsonl"], rules())] == [
        None,
        "expected UTF-8, got another encoding at byte 11; save it in UTF-8",
    ]


def test_ids_are_unique_over_all_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"audio": "a", "id": "x"}\n\n{"audio": "a", "id": "x"}\n')
    (tmp_path / "b.jsonl").write_text('{"audio": "a", "id": "y"}\n{"audio": "a", "id": "x"}\n{"audio": "a"}\n')
    found = list(read_lines([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], rules()))
    assert [one.problem for one in found] == [
        None,
        "line 1 has the same id: ids must be unique",
        None,
        "a line of an earlier file has the same id: ids must be unique",
        None,
    ]
    assert found[-1].where == "b.jsonl:3 (b-3)"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jsonl").write_text('{"audio": "a"}\n')
    both = [tmp_path / "b.jsonl", tmp_path / "more" / "b.jsonl"]
    assert [one.id for one in read_lines(both, rules())] == ["y", "x", "b-3", "b.2-1"]
    assert [one.line.number for one in found] == [0, 2, 3, 4, 5]


def test_texts_are_normalised_as_asked(tmp_path):
    line = {"audio": "a", "text": "[1] It’s “so-so”...\n[2] haha"}
    for normalizer, text in (
        ("none", "[S1] It’s “so-so”...\n[S2] haha"),
        ("generate", "[S1]Its soso。[S2][laugh]"),
        ("ordinary", "[S1]It's so so。[S2][laugh]"),
    ):
        [(_, found)] = read(tmp_path / "in.jsonl", line, normalizer=normalizer)
        assert found.fields["text"] == text


def test_given_codes_are_checked_against_the_codec(tmp_path):
    found = read(
        tmp_path / "in.jsonl",
        {"audio_codes": [[1, 2, 99]], "ref_audio_codes": [[7, 7]]},
        {"audio_codes": [[1]]},
        {"audio_codes": [[1, 8]]},
        {"audio_codes": [[-1, 2]]},
        {"audio_codes": [[1, 2]], "ref_audio_codes": [[1, 8]]},
    )
    assert found[0][1].codes.tolist() == [[1, 2]]
    assert "expected 2 codebooks, got 1" in found[1][1]
    assert all("codes go from 0 to 7" in found[i][1] for i in (2, 3, 4))


def test_paths_begin_where_they_are_said_to(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "a.wav").touch()
    (tmp_path / "there" / "a.wav").touch()
    (tmp_path / "there" / "b.wav").touch()
    line = Line(0, tmp_path / "there" / "in.jsonl", 1, "in-1", b"{}")
    assert resolve("a.wav", line, None) == Path("a.wav")
    assert resolve("b.wav", line, None) == tmp_path / "there" / "b.wav"
    assert resolve("c.wav", line, None) == Path("c.wav")
    assert resolve("/c.wav", line, None) == Path("/c.wav")
    assert resolve("a.wav", line, Path("/base")) == Path("/base/a.wav")


def test_an_input_is_known_by_its_content(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n\n{}")
    assert digest(path).n_lines == len(list(lines_of([path]))) == 2
    before = digest(path)
    path.write_text("{}\n\n{ }")
    assert digest(path) != before
    for data in (b"\xff\xfe{\x00", b"RIFF\x00\x00"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="JSON lines in UTF-8"):
            digest(path)
    with pytest.raises(ValueError, match="no regular file"):
        digest(tmp_path)


def test_codes_stay_integers():
    assert record(audio_codes=CODES).codes.dtype == np.int64
