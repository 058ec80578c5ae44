"""The normaliser of the family's processor: its results on golden texts, and what it never does."""

import pytest
from golden_data import golden_json
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.robust_text import robust_text

ROWS = golden_json("text/normalize")["rows"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["input"][:30]))
def test_texts_are_as_upstreams_processor_has_them(row: dict[str, str]):
    assert robust_text(row["input"]) == row["hf_build_user_message"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("See [the notes](https://x.y/z_a).", "See the notes https://x.y/z_a."),
        ("# Title\n> quoted\n- one\n* two\n3. three", "Title。quoted。one。two。three"),
        ("A -> B ⇒ C", "A，B，C"),
        ("wait -- what", "wait。what"),
        ("wait--what", "wait--what"),  # a name with marks in it, such as a-b.c
        ("【公告】《新歌》——来了", "公告。新歌。来了"),
        ("我读《家》这本书", "我读《家》这本书"),
        ("用API和v2.3.1吧", "用 API 和 v2.3.1 吧"),
        ("在 3 月 5 日", "在3月5日"),
        ("写信给a.b@c.de吧", "写信给 a.b@c.de 吧"),
        ("what?!?! no!!! 真的？？", "what？！no！真的？"),
        ("a\u200bb\x07c\ufeff", "abc"),
        ("\U000f0000x\ue000", "x"),  # a character of the plane that stands for kept spans
        ("look at .env, #tag and @me", "look at .env, #tag and @me"),
    ],
)
def test_what_it_rewrites(text: str, read: str):
    assert robust_text(text) == read


@pytest.mark.parametrize(
    "piece",
    ["1", "1-", "a%", "[a](http://x", "。【", "。《", "\xa0", "-", ".", "<-", "= ", "你", "a@", "#", "@a", "你1"],
)
def test_long_texts_of_one_kind_are_read_once(piece: str):
    assert robust_text(piece * 15_000 + "你") or piece  # read from every character it would take an hour


@given(st.text(max_size=60))
def test_any_text_becomes_one_line_of_ordinary_characters(text: str):
    read = robust_text(text)
    assert read == read.strip()
    assert "\n" not in read
    assert all(ord(c) < 0xF0000 for c in read)
