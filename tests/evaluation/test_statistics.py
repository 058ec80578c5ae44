"""Figures against values known beforehand, intervals and p-values against what they must hold to."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.evaluation.results import Errors, ItemScore, TurnScore
from sglang_moss.evaluation.statistics import METRICS, difference_of, figures_of, ratio_figure

pytestmark = pytest.mark.wide

WER, _, ACC, SIM, _ = METRICS
few = settings(max_examples=15)


def item(name: str, n_errors: int, n_words: int = 10, similarities: list[dict[int, float]] | None = None) -> ItemScore:
    errors = Errors(n=n_words, substituted=n_errors, deleted=0, inserted=0)
    turns = [TurnScore(speaker=1, text="x", start_s=0, end_s=1, similarities=s) for s in similarities or []]
    return ItemScore(id=name, language="en", audio=None, words=errors, characters=errors, turns=turns)


def run(errors: list[int]) -> list[ItemScore]:
    return [item(str(i), n) for i, n in enumerate(errors)]


def test_a_figure_is_a_sum_over_a_sum():
    figures = figures_of([item("a", 1, 10), item("b", 3, 30), item("c", 0, 10)])
    assert figures["wer"].value == 4 / 50
    assert (figures["wer"].n, figures["wer"].n_items) == (50, 3)
    assert "acc" not in figures


def test_attribution_and_similarity_are_over_turns():
    right, wrong, alone, short = {1: 0.9, 2: 0.4}, {1: 0.3, 2: 0.7}, {1: 0.6}, {}
    figures = figures_of([item("a", 0, 10, [right, wrong, short]), item("b", 0, 10, [right, alone])])
    assert (figures["acc"].value, figures["acc"].n) == (2 / 3, 3)
    assert figures["sim"].value == pytest.approx((0.9 + 0.3 + 0.9 + 0.6) / 4)
    assert figures["sim"].n == 4


def test_one_item_has_no_interval_and_equal_items_have_one_without_width():
    assert ratio_figure(np.array([[1.0, 10.0]])).low is None
    equal = ratio_figure(np.array([[1.0, 10.0]] * 5))
    assert (equal.low, equal.value, equal.high) == (0.1, 0.1, 0.1)


def test_the_interval_of_a_mean_is_near_that_of_normal_theory():
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 400)
    figure = ratio_figure(np.stack([values, np.ones(400)], axis=1))
    half = 1.96 * values.std(ddof=1) / 20
    assert figure.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert figure.high == pytest.approx(values.mean() + half, abs=0.1 * half)


@few
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=2, max_size=12))
def test_the_interval_lies_among_the_items(pairs):
    figure = ratio_figure(np.array(pairs, dtype=float))
    rates = [n / size for n, size in pairs]
    assert min(rates) - 1e-12 <= figure.low <= figure.value + 1e-12
    assert figure.value - 1e-12 <= figure.high <= max(rates) + 1e-12


def test_p_is_that_of_all_ways_to_swap():
    # Six items, all better in B: of the 64 ways to swap, the two that swap all or none are as far apart.
    found = difference_of(WER, run([3] * 6), run([1] * 6))
    assert found is not None
    assert found.p_value == pytest.approx(2 / 64)
    assert (found.a, found.b, found.better) == (0.3, 0.1, "b")
    # One item of six against the others: at least as far apart are sums of 6, 5 or 4 of one sign.
    found = difference_of(WER, run([3, 3, 3, 3, 3, 1]), run([1, 1, 1, 1, 1, 3]))
    assert found is not None
    assert found.p_value == pytest.approx(2 * (comb(6, 0) + comb(6, 1)) / 64)


@few
@given(st.lists(st.integers(0, 10), min_size=2, max_size=30))
def test_a_run_does_not_differ_from_itself(errors):
    found = difference_of(WER, run(errors), run(errors))
    assert found is not None
    assert (found.low, found.high, found.p_value, found.better) == (0, 0, 1, None)
    assert not found.is_significant


@few
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=11))
def test_swapping_the_runs_swaps_the_difference(pairs):
    a, b = (run(list(errors)) for errors in zip(*pairs, strict=True))
    there, back = difference_of(WER, a, b), difference_of(WER, b, a)
    assert there is not None
    assert back is not None
    assert there.p_value == back.p_value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.02)
    assert {there.better, back.better} in ({None}, {"a", "b"})


def test_what_everybody_gains_is_significant_and_what_chance_gives_is_not():
    rng = np.random.default_rng(5)
    before = rng.integers(2, 6, 60)
    gained = difference_of(WER, run(list(before)), run(list(before - rng.integers(0, 3, 60))))
    assert gained is not None
    assert gained.is_significant
    assert gained.high < 0
    same = difference_of(WER, run(list(before)), run(list(rng.permutation(before))))
    assert same is not None
    assert same.low <= 0 <= same.high
    assert not same.is_significant


def test_chance_is_called_significant_about_as_often_as_it_is_said_to_be():
    rng = np.random.default_rng(11)
    found = [
        difference_of(WER, run(list(rng.integers(0, 9, 10))), run(list(rng.integers(0, 9, 10)))) for _ in range(60)
    ]
    assert sum(d.is_significant for d in found if d) <= 9  # 3 expected; more than 9 once in 700 times


def test_other_sizes_are_swapped_with_their_numbers():
    a = [item("a", 1, 2), item("b", 0, 100)]
    b = [item("a", 0, 100), item("b", 1, 2)]
    found = difference_of(WER, a, b)
    assert found is not None
    assert (found.a, found.b, found.p_value) == (1 / 102, 1 / 102, 1)


def test_only_what_both_have_is_held_together():
    a = [item("a", 0, 10, [{1: 0.9, 2: 0.1}]), item("b", 0, 10)]
    b = [item("a", 0, 10, [{1: 0.5, 2: 0.1}]), item("b", 0, 10, [{1: 0.5, 2: 0.1}])]
    found = difference_of(SIM, a, b)
    assert found is not None
    assert (found.n_items, found.p_value, found.better) == (1, None, "a")
    assert difference_of(ACC, [a[1]], [b[1]]) is None
