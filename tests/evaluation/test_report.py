"""The page: conforming HTML, everything escaped, nothing from elsewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import html5lib
import pytest
from judged_speech import joined, write_speech

from sglang_moss.evaluation.report import write_report
from sglang_moss.evaluation.results import Errors, Figure, ItemScore, Result, SignalScore, TurnScore

pytestmark = pytest.mark.wide

HOSTILE = "<script>alert(1)</script> \" onload='x' & <img src=http://example.com/x>"


def hostile_result(audio: str | None) -> Result:
    signal = SignalScore(
        seconds=2, level_dbfs=-20, clipped_samples=0, silence_start_s=0, silence_end_s=0, longest_silence_s=0,
        letters_per_second=12, flags=["cut_end"],
    )  # fmt: skip
    turns = [
        TurnScore(speaker=1, text=HOSTILE, start_s=0, end_s=1, similarities={1: 0.8, 2: 0.3}),
        TurnScore(speaker=2, text="x", start_s=1, end_s=2, similarities={1: 0.8, 2: 0.3}),
    ]
    errors = Errors(n=10, substituted=1, deleted=0, inserted=0)
    judged = ItemScore(
        id=HOSTILE, language="en", audio=audio, said=HOSTILE + " end", heard="<b> " + HOSTILE, heard_text=HOSTILE,
        words=errors, characters=errors, turns=turns, signal=signal, notes=[HOSTILE],
    )  # fmt: skip
    failed = ItemScore(id="b", language="zh", audio=None, problem=HOSTILE)
    return Result(
        made_at="2026", dataset=HOSTILE, server=HOSTILE, settings={HOSTILE: HOSTILE, "none": None},
        versions={HOSTILE: HOSTILE}, flags={HOSTILE: 1}, n_failed=1, items=[judged, failed],
        figures={"wer": Figure(value=0.1, low=0.0, high=0.2, n=10, n_items=2),
                 "sim": Figure(value=0.8, low=None, high=None, n=2, n_items=1)},
    )  # fmt: skip


def page_of(result: Result, folder: Path, **options) -> str:
    write_report(result, folder, folder / "report.html", **options)
    return (folder / "report.html").read_text("utf-8")


def parsed(page: str):
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def test_the_page_conforms_and_holds_no_text_that_is_not_escaped(tmp_path):
    page = page_of(hostile_result("a <b>.wav"), tmp_path)
    tree = parsed(page)
    assert not list(tree.iter("script"))
    assert {name for element in tree.iter() for name in element.attrib if name.startswith("on")} == set()
    assert "<script" not in page
    assert "<img src=http" not in page
    shown = "".join(tree.itertext())
    assert shown.count("<script>alert(1)</script>") >= 8


def test_nothing_comes_from_elsewhere(tmp_path):
    page = page_of(hostile_result("a <b>.wav"), tmp_path)
    tree = parsed(page)
    sources = [e.attrib[name] for e in tree.iter() for name in ("src", "href", "data", "action") if name in e.attrib]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") or unquote(source) == "a <b>.wav" for source in sources)
    assert "url(" not in page
    assert "@import" not in page


def test_speech_is_linked_from_where_the_page_stands_or_put_into_it(tmp_path):
    write_speech(tmp_path / "out.audio", "a 1", joined(["slt_wish"])[:1600])
    pages = tmp_path / "pages"
    pages.mkdir()
    result = hostile_result("out.audio/a 1.wav")
    write_report(result, tmp_path, pages / "report.html")
    [player] = parsed((pages / "report.html").read_text("utf-8")).iter("audio")
    assert (pages / unquote(player.attrib["src"])).is_file()
    [player] = parsed(page_of(result, tmp_path, embed=True)).iter("audio")
    assert re.match(r"data:audio/(x-)?wav;base64,UklGR", player.attrib["src"])


def test_a_page_is_made_of_a_result_without_any_score(tmp_path):
    empty = hostile_result(None).model_copy(update={"items": [], "figures": {}, "flags": {}})
    assert "Nothing could be judged." in page_of(empty, tmp_path)
    parsed(page_of(empty, tmp_path))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_that_differ_are_marked(tmp_path, language):
    errors = Errors(n=3, substituted=1, deleted=0, inserted=1)
    item = ItemScore(
        id="a", language=language, audio=None, said="a b c", heard="a x c d", words=errors,
        characters=errors, signal=hostile_result(None).items[0].signal,
    )  # fmt: skip
    tree = parsed(page_of(hostile_result(None).model_copy(update={"items": [item]}), tmp_path))
    assert [e.text for e in tree.iter("del")] == ["b"]
    assert [e.text for e in tree.iter("ins")] == ["x", "d"]
