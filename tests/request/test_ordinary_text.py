"""What people write, in front of the normaliser: who speaks, and words and numbers that stay what they are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.errors import BadText
from sglang_moss.request.ordinary_text import ordinary_script, ordinary_turn, ordinary_words, plain_lines, transcript_of
from sglang_moss.request.text import has_words, merge_speaker_tags, normalize_text


def spoken(text: str) -> str:
    return normalize_text(ordinary_script(text, "input"))


TAGS = {
    "[s1] Hello. [s2] Hi.": "[S1]Hello.[S2]Hi.",
    "[S 1] a [ S2 ] b": "[S1]a[S2]b",
    "［S1］a【S2】b": "[S1]a[S2]b",
    "[S１] a [ｓ２] b": "[S1]a[S2]b",
    "[S1\u200b] a [\u2060S2] b": "[S1]a[S2]b",
    "[S01] a": "[S1]a",
    "[S1]: a\n**[S2]:** b": "[S1]a[S2]b",
    "[Speaker 1] a [SPEAKER_2]: b": "[S1]a[S2]b",
    "\ufeff[S2] Hi\r\nHo": "[S2]Hi Ho",
    "[1] Hi. [2] Ho.": "[S1]Hi.[S2]Ho.",
    "\n【1】 Hi.\n【2】 Ho.": "[S1]Hi.[S2]Ho.",
    "[1] Hi. [S2] Ho.": "1 Hi.[S2]Ho.",
    "The sky is blue [1]. Grass is green [2].": "The sky is blue. Grass is green.",
    "The sky is blue[1][2], they say [3] [4].": "The sky is blue, they say.",
    "The sky is blue [6].": "The sky is blue.",
    "Blue【3】.": "Blue.",
    "In [2024] it was so.": "In 2024 it was so.",
    "the array a[0] holds it, a[1] and x_y[2] too": "the array a 0 holds it, a 1 and x y 2 too",
    "[S1] As [2] says.": "[S1]As 2 says.",
    "[laugh] Well, [笑] yes": "[laugh] Well, [笑] yes",
    "[2024] was a year.": "2024 was a year.",
}


@pytest.mark.parametrize("text", TAGS)
def test_tags_are_those_that_were_meant(text: str):
    assert spoken(text) == TAGS[text]


@pytest.mark.parametrize("tag", ["[s6]", "[S 0]", "【S7】", "[S" + "9" * 5000 + "]", "[S１０]", "[6]", "[0]"])
def test_a_tag_of_nobody_is_refused_as_it_was_written(tag: str):
    with pytest.raises(BadText, match=r"^input: speaker tags go from \[S1\] to \[S5\], got ") as refusal:
        ordinary_script(f"[1] Hello. {tag} Hi.", "input")
    assert (tag if len(tag) < 20 else "one with 5000 digits") in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "Speaker 1: Hi.\nSpeaker 2: Ho.",
        "speaker 1: Hi. speaker 2: Ho.",
        "S1: Hi.\nS2: Ho.",
        "(S1) Hi. (S2) Ho.",
        "Alice: Hi.\nBob: Ho.",
        "**Alice:** Hi.\n\n**Bob:** Ho.",
        "Alice: Hi.\nShe waits.\nAlice: Ho.",
        "说话人1：你好。\n说话人2：好。",
        "小明：你好。\n小红：好。",
    ],
)
def test_names_in_front_of_turns_are_refused_with_the_way_to_write_them(text: str):
    with pytest.raises(BadText, match=r"^input: turns begin with .*write \[S1\], \[S2\] in place of the names"):
        ordinary_script(text, "input")
    assert ordinary_script(f"[S1] {text}", "input")


@pytest.mark.parametrize(
    "text",
    [
        "Note: it rains.",
        "One thing: go.\nThen come.",
        "http://a.b\nhttps://c.d",
        "10:30 here\n11:30 there",
        "a: b\nc: d",
    ],
)
def test_prose_with_colons_passes(text: str):
    assert ordinary_script(text, "input")


# Left: as written; right: as the normaliser leaves it.
WORDS = {
    "We’re here and I’ll go. He‘ll stay.": "We're here and I'll go. He'll stay.",
    "L´amour, O`Brien, the 1990’s": "L'amour, O'Brien, the 1990's",
    "dogs’ ’90s ‘quoted’ 他说‘你好’他": "dogs 90s quoted 他说你好他",
    "A well-known follow‑up, COVID-19, pre- and post-war": "A well known follow up, COVID 19, pre and post war",
    "It is -5 degrees, −5 or –5 (-3), -$5": "It is minus 5 degrees, minus 5 or minus 5 (minus 3), minus $5",
    "[S1]-5": "[S1]minus 5",
    "今天-5度": "今天负5度",
    "今日は-5度": "今日はマイナス5度",
    "Сегодня -5": "Сегодня минус 5",
    "2019-2020, 10-20, 3~5, 10％～20人, 1.5-2.5, $5-$10": "2019–2020, 10–20, 3–5, 10％20人, 1.5–2.5, $5–$10",
    "555-1234, 1-800-555-1234, 2024-05-01, 3-1": "555 1234, 1 800 555 1234, 2024 05 01, 3 1",
    "at 10:30, 10:00 am, 1:02:03, 16:9": "at 10 30, 10 am, 1 02 03, 16 9",
    "10:30-11:45": "10 30 – 11 45",
    "今天10:30和11:00": "今天10点30分和11点",
    "https://example.com/a-b_c": "example.com/a b c",
    "word - word, a--b": "word ， word, a，b",
    "- one\n- two\n---": "one  two",
}


@pytest.mark.parametrize("text", WORDS)
def test_words_and_numbers_stay_what_they_are(text: str):
    assert normalize_text(ordinary_words(text)) == WORDS[text]


pieces = st.lists(
    st.sampled_from(
        ["well", "a", "ll", "2019", "5", "30", "-", "’", "~", "_", ":", " ", "–", "‑", "'", ".", "\n", "中", "−"]
    )
)


@given(pieces.map("".join))
def test_no_two_words_and_no_two_numbers_run_together(text: str):
    heard = normalize_text(ordinary_words(text))
    written = set(re.findall(r"\d+|[a-z]+", text)) | {"minus"}
    assert set(re.findall(r"\d+|[a-z]+", heard)) <= written


@given(st.text(max_size=80))
def test_any_text_is_taken_or_refused(text: str):
    try:
        found = ordinary_script(text, "input")
    except BadText:
        return
    assert "\r" not in found


@given(st.lists(st.sampled_from(["[S1]", "[S3]", " word", "\n", ".", "[laugh]", "哈哈"])).map("".join))
def test_a_script_that_needs_nothing_is_left_alone(text: str):
    assert ordinary_script(text, "input") == text
    assert merge_speaker_tags(plain_lines(text)) == merge_speaker_tags(text)


@pytest.mark.parametrize("text", ["", " ", "...", "---", "***", ")", "😀", "\u200b", "[S1][S2]", "[S1] ... [S2] 。"])
def test_nothing_to_say(text: str):
    assert not has_words(text)


@pytest.mark.parametrize("text", ["a", "[S1] 7", "哈", "[laugh]", "ß", "٣"])
def test_something_to_say(text: str):
    assert has_words(text)


def test_a_turn_has_no_tags_and_its_numbers_are_no_speakers():
    assert ordinary_turn("[1] Hi [2024].", "dialogue.0.text") == "1 Hi 2024."
    assert ordinary_turn("a-b [1]\r\n", "dialogue.0.text", verbatim=True) == "a-b [1]\n"
    for tag in ("[S1]", "[s2]", "【S3】", "[S9]", "[S" + "9" * 5000 + "]"):
        with pytest.raises(BadText, match=r"^dialogue.0.text: .*no speaker tags"):
            ordinary_turn(f"Hi {tag} ho", "dialogue.0.text", verbatim=True)


@pytest.mark.parametrize("speaker", [2, None])
def test_a_transcript_loses_its_own_tag(speaker: int | None):
    for text in ("Good day.", "[S2] Good day.", "[s2]Good day.", "\ufeff【S2】 Good [S2] day."):
        assert transcript_of(text, speaker, "text") == "Good day."
    assert transcript_of("As in [2], good day [2024].", speaker, "text") == "As in, good day 2024."
    assert transcript_of("As in [2].", speaker, "text", keep_numbers=True) == "As in [2]."


@pytest.mark.parametrize(
    ("text", "speaker"),
    [("[S1] Hi.", 2), ("Hi. [s1] Ho.", 2), ("[S1] Hi. [S2] Ho.", None), ("[S2] a [S3] b", 2), ("[S9] a", 2)],
)
def test_a_transcript_with_another_tag_is_refused(text: str, speaker: int | None):
    with pytest.raises(BadText, match=r"^references.1.text: "):
        transcript_of(text, speaker, "references.1.text")


@pytest.mark.parametrize("text", ["...", "[S1]", "\u200b"])
def test_a_transcript_says_something(text: str):
    with pytest.raises(BadText, match="expected what is said in the clip"):
        transcript_of(text, 1, "text")
