"""Turns as clients see them, and files of subtitles."""

import json
import re
from pathlib import Path

import pytest
from fake_endpoints import serving, three_events
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sglang_moss.clients import MossClient, SpokenTurn, UnusableAnswer
from sglang_moss.clients.cli import app
from sglang_moss.clients.turns import as_json, check_subtitles, srt, turns_in, vtt

pytestmark = pytest.mark.wide

TURNS = [SpokenTurn("S1", 0.0, 1.25, "Did you\n\nhear <that>?"), SpokenTurn(None, 3661.5, 3662.0, "No & yes.")]


def test_subrip_has_numbered_cues_with_commas():
    assert srt(TURNS) == (
        "1\n00:00:00,000 --> 00:00:01,250\nS1: Did you hear <that>?\n\n2\n01:01:01,500 --> 01:01:02,000\nNo & yes.\n"
    )


def test_webvtt_escapes_words_and_names_voices():
    assert vtt(TURNS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\n<v S1>Did you hear &lt;that&gt;?\n\n"
        "01:01:01.500 --> 01:01:02.000\nNo &amp; yes.\n"
    )


@given(st.lists(st.builds(SpokenTurn, st.sampled_from(["S1", None]), st.floats(0, 1e5), st.floats(0, 1e5), st.text())))
def test_json_is_what_the_server_tells_and_no_cue_has_an_empty_line(turns: list[SpokenTurn]):
    assert turns_in({"turns": json.loads(as_json(turns))}) == turns
    for text in (srt(turns), vtt(turns)):
        assert len(re.findall(r"^\d\d+:\d\d:\d\d[,.]\d{3} --> ", text, re.MULTILINE)) == len(turns)


@pytest.mark.parametrize("told", [[{"speaker": "S1"}], [1], 3, [{"speaker": 1, "start": "x", "end": 1, "text": ""}]])
def test_turns_that_are_none_are_told(told: object):
    with pytest.raises(UnusableAnswer, match="turns"):
        turns_in({"turns": told})


def test_the_last_chunk_has_them(tmp_path: Path):
    with serving(three_events, tmp_path) as (http, _), MossClient(str(http.base_url)) as client:
        *before, last = client.speech("[S1] Hi. [S2] Ho.", timestamps=True)
        assert last.turns is not None
        assert [(turn.speaker, turn.text) for turn in last.turns] == [("S1", "Hi."), ("S2", "Ho.")]
        assert all(chunk.turns is None for chunk in before)
        assert [chunk.turns for chunk in client.speech("Hi.")][-1] is None


@pytest.mark.parametrize("suffix", ["srt", "vtt", "json"])
def test_say_writes_subtitles_beside_the_speech(tmp_path: Path, suffix: str):
    with serving(three_events, tmp_path) as (http, _):
        arguments = ["say", "[S1] Hi. [S2] Ho.", "-o", str(tmp_path / "a.wav"), "--url", str(http.base_url)]
        result = CliRunner().invoke(app, [*arguments, "--subtitles", str(tmp_path / f"a.{suffix}")])
    assert result.exit_code == 0, result.output
    assert "Ho." in (tmp_path / f"a.{suffix}").read_text("utf-8")


@pytest.mark.parametrize("name", ["a.txt", "nowhere/a.srt"])
def test_a_file_that_cannot_be_one_is_refused_before_anything_is_asked(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=r"suffix|folder"):
        check_subtitles(tmp_path / name)
