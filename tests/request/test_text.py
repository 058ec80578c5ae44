"""Script text: parity of the normaliser and of the merging of tags, and what is refused."""

import json

import pytest
from golden_data import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.errors import BadRequest, BadText
from sglang_moss.request.text import (
    MAX_SPEAKERS,
    check_text,
    merge_speaker_tags,
    normalize_text,
    prefix_prompt_texts,
    speakers_in,
)

CASES = GOLDEN / "cases" / "text"
NORMALIZE = json.loads((CASES / "normalize.json").read_text(encoding="utf-8"))["rows"]
TAGS = json.loads((CASES / "speaker_tags.json").read_text(encoding="utf-8"))
SPECIAL = frozenset({"<|im_end|>", "<|Audio|>"})

scripts = st.lists(
    st.sampled_from(["[S1]", "[S2]", "[2]", "[S12]", " ", "\n", "a", "哈哈", "ha ha", "。", "…", "“", ","])
)


@pytest.mark.parametrize("row", NORMALIZE, ids=lambda row: repr(row["input"][:24]))
def test_normaliser_equals_the_served_one(row):
    assert normalize_text(row["input"]) == row["served_ttsd"]


@pytest.mark.parametrize("row", NORMALIZE, ids=lambda row: repr(row["input"][:24]))
def test_normalising_twice_equals_the_served_one_twice(row):
    assert normalize_text(normalize_text(row["input"])) == row["served_ttsd_twice"]


@pytest.mark.parametrize("case", TAGS["merge_consecutive"], ids=lambda case: repr(case["input"][:24]))
def test_merging_equals_the_reference(case):
    assert merge_speaker_tags(case["input"]) == case["merged"]


@pytest.mark.parametrize("case", TAGS["prefixed_text"], ids=lambda case: f"{len(case['prompt_texts'])} speakers")
def test_prefixing_equals_the_reference(case):
    prompt_texts = {int(speaker): transcript for speaker, transcript in case["prompt_texts"].items()}
    assert prefix_prompt_texts(case["text"], prompt_texts) == case["prefixed"]


@given(scripts.map("".join))
def test_merging_is_idempotent_and_keeps_every_speaker(text):
    merged = merge_speaker_tags(text)
    assert merge_speaker_tags(merged) == merged
    assert speakers_in(merged) == speakers_in(text)


@given(scripts.map("".join))
def test_normalised_text_is_one_line_without_bare_tags(text):
    normalized = normalize_text(text)
    assert "\n" not in normalized
    assert "[2]" not in normalized


def test_speakers_are_listed_once_in_numeric_order_without_zero():
    assert speakers_in("[S10]x[S2]y[S0]z[S2][s3][S 4][5]") == [2, 10]


@pytest.mark.parametrize(
    "text",
    ["no tags", "[S1] hi [S5] ho", "[1] old", "[s9] low", "[S 9] gap", "[laugh] [S1]", "<|x|>", "{text}"],
)
def test_speakable_text_passes(text):
    check_text(text, SPECIAL)


@pytest.mark.parametrize("tag", ["[S0]", f"[S{MAX_SPEAKERS + 1}]", "[S12]", "[S01]", "[S１]", "[S" + "9" * 5000 + "]"])
def test_tag_outside_the_speakers_is_refused_by_name_or_length(tag):
    with pytest.raises(BadText, match=r"\[S1\] to \[S5\]") as refusal:
        check_text(f"[S1] hello {tag} there", SPECIAL)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "text", ["", " \n\t", "　", "[S1]", "[S1] [S2]\n", "[S1]。", "[S1] ...", "---", "😀", "\u200b"]
)
def test_text_without_words_is_refused(text):
    with pytest.raises(BadText, match="expected words"):
        check_text(text, SPECIAL)


@pytest.mark.parametrize("special", sorted(SPECIAL))
def test_special_string_is_refused_wherever_it_stands(special):
    for text in (special, f"[S1] before {special}", f"{special} after", f"x{special}y"):
        with pytest.raises(BadText, match="control token"):
            check_text(text, SPECIAL)


@pytest.mark.parametrize("text", [None, 7, ["[S1] hi"], b"[S1] hi", {"text": "hi"}])
def test_text_of_another_type_is_refused(text):
    with pytest.raises(BadText, match="expected a string"):
        check_text(text, SPECIAL)


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(BadText, match="surrogate"):
        check_text(json.loads('"[S1] hi \\ud83d"'), SPECIAL)


def test_a_refusal_is_a_value_error_with_status_400():
    with pytest.raises(ValueError, match="expected words") as refusal:
        check_text("", SPECIAL)
    assert isinstance(refusal.value, BadRequest)
    assert refusal.value.status == 400
