"""Long scripts: turns, their division into parts, and how parts are joined."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.request.text import has_words
from sglang_moss.request.turns import Turn, speech_seconds, turns_of
from sglang_moss.server.speech.crossfade import Crossfade
from sglang_moss.server.speech.parts import PartLimit, plan_parts, text_tokens

FPS = 12.5
words = st.text(st.sampled_from("ab cd。.!? 你好\n界1"), max_size=200).map(str.strip).filter(bool)
turns = st.lists(st.builds(Turn, st.integers(1, 5), words), min_size=1, max_size=30)
limits = st.builds(PartLimit, st.floats(5, 60), st.floats(120, 900), st.just(FPS))


def estimate(part: list[Turn]) -> tuple[float, float]:
    return sum(speech_seconds(t.words) for t in part), sum(text_tokens(t.words) for t in part)


def spoken(part: list[Turn]) -> list[tuple[int | None, str]]:
    """Each character that is not blank, with who says it."""
    return [(turn.speaker, c) for turn in part for c in re.sub(r"\s", "", turn.words)]


@given(turns, limits, limits)
def test_everything_is_said_once_in_order_and_every_part_keeps_its_limit(script, opening, others):
    parts = plan_parts(script, opening, others)
    assert [c for part in parts for c in spoken(part)] == spoken(script)
    assert all(parts)
    for i, part in enumerate(parts):
        limit = others if i else opening
        assert limit.holds(*estimate(part))


@given(turns, limits)
def test_turns_that_fit_a_part_are_never_cut(script, limit):
    parts = plan_parts(script, limit, limit)
    pieces = [turn for part in parts for turn in part]
    if all(limit.holds(*estimate([turn])) for turn in script):
        assert pieces == script
    else:
        assert len(pieces) > len(script)


@given(turns, limits)
def test_no_part_could_have_held_the_next_turn(script, limit):
    script = [turn for turn in script if limit.holds(*estimate([turn]))]
    parts = plan_parts(script, limit, limit) if script else []
    for part, following in itertools.pairwise(parts):
        assert not limit.holds(*estimate([*part, following[0]]))


def test_a_script_that_fits_is_one_part():
    script = [Turn(1, "Hello."), Turn(2, "Hi.")]
    limit = PartLimit(60, 1000, FPS)
    assert plan_parts(script, limit, limit) == [script]


def test_a_long_turn_is_cut_at_the_end_of_a_sentence():
    sentence = "This is a sentence of some length, at 3.5 words a second."
    limit = PartLimit(10, 1000, FPS)
    parts = plan_parts([Turn(2, " ".join([sentence] * 9))], limit, limit)
    assert len(parts) > 2
    assert all(turn.speaker == 2 and turn.words.endswith("a second.") for part in parts for turn in part)


def test_a_turn_without_sentences_is_cut_at_a_blank_and_one_without_blanks_anywhere():
    limit = PartLimit(5, 1000, FPS)
    by_blank = plan_parts([Turn(1, "word " * 100)], limit, limit)
    assert {turn.words.replace("word", "").strip() for part in by_blank for turn in part} == {""}
    anywhere = plan_parts([Turn(1, "x" * 1000)], limit, limit)
    assert sum(len(turn.words) for part in anywhere for turn in part) == 1000


def test_a_book_is_planned_in_one_pass():
    """Cutting looks at what can fit only, not at the whole rest: the same work for each part."""
    book = Turn(1, "A sentence of a book. " * 40_000)
    limit = PartLimit(45, 5000, FPS)
    parts = plan_parts([book], limit, limit)
    assert spoken([turn for part in parts for turn in part]) == spoken([book])


@given(turns)
def test_turns_are_read_back_from_the_script_they_make(script):
    text = "".join(map(str, script))
    read = turns_of(text)
    assert [(t.speaker, t.words) for t in read] == [(t.speaker, t.words) for t in script if has_words(t.words)]


def test_turns_without_a_letter_or_a_digit_are_left_out():
    assert turns_of("[1]a [S2] b[S1]...[S3]😀[S2] --- ") == [Turn(None, "[1]a"), Turn(2, "b")]


def test_the_rule_of_thumb_is_near_the_pace_of_speech():
    english = "The quick brown fox jumps over the lazy dog near the river bank today. " * 10
    minutes = speech_seconds(english) / 60
    assert 120 < len(english.split()) / minutes < 200  # words a minute
    assert 2 < 40 / speech_seconds("你" * 40) < 6  # characters a second


samples = st.lists(st.lists(st.integers(-32768, 32767), min_size=0, max_size=40), min_size=1, max_size=5)


def joined(parts: list[np.ndarray], n_overlap: int, cuts: list[int]) -> np.ndarray:
    joiner, out = Crossfade(n_overlap), []
    for i, part in enumerate(parts):
        if i:
            joiner.next_part()
        out += [joiner.add(piece) for piece in np.split(part, sorted(c % (len(part) + 1) for c in cuts))]
    return np.concatenate([*out, joiner.finish()])


@given(samples, st.integers(0, 9), st.lists(st.integers(0, 1000), max_size=6))
def test_any_chunks_join_to_the_same_samples(parts, n_overlap, cuts):
    arrays = [np.array(part, np.int16) for part in parts]
    whole = joined(arrays, n_overlap, [])
    np.testing.assert_array_equal(joined(arrays, n_overlap, cuts), whole)
    assert whole.dtype == np.int16


@given(samples, st.integers(0, 9))
def test_samples_away_from_the_joints_are_unchanged(parts, n):
    arrays = [np.array(part, np.int16) for part in parts if len(part) >= 2 * n + 1]
    if not arrays:
        return
    whole = joined(arrays, n, [])
    assert len(whole) == sum(map(len, arrays)) - n * (len(arrays) - 1)
    at = 0
    for i, part in enumerate(arrays):
        first, last = (n if i else 0), len(part) - (n if i + 1 < len(arrays) else 0)
        np.testing.assert_array_equal(whole[at + first : at + last], part[first:last])
        at += len(part) - n


@pytest.mark.parametrize("n", [1, 7, 240])
def test_a_joint_steps_no_further_than_a_ramp_between_the_levels(n):
    low, high = np.full(1000, -20_000, np.int16), np.full(1000, 20_000, np.int16)
    steps = np.diff(joined([low, high], n, []).astype(int))
    assert 0 <= steps.min() <= steps.max() <= math.ceil(40_000 / n)
    same = np.full(1000, 12_345, np.int16)
    assert (joined([same, same], n, []) == 12_345).all()
