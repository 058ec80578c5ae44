"""Borders between turns: where silence was put, where words were heard, where letters were planted."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_speech import DIALOGUE, RATE, clip, joined, turns

from sglang_moss.evaluation.aligners import load_aligner, spans_of
from sglang_moss.evaluation.aligners.proportional import cheapest_in_order
from sglang_moss.evaluation.errors import CannotJudge
from sglang_moss.evaluation.recognisers import Heard, Word
from sglang_moss.server.speech.parts import Turn

pytestmark = pytest.mark.wide

PAUSE_S = 0.2


def true_edges(names=DIALOGUE) -> list[tuple[float, float]]:
    """When each clip begins and ends in `joined`."""
    edges, at = [], 0.1
    for name in names:
        seconds = len(clip(name)) / RATE
        edges.append((at, at + seconds))
        at += seconds + PAUSE_S
    return edges


def true_words() -> list[Word]:
    """Words at even distances in their turn."""
    words = []
    for turn, (begin, end) in zip(turns(DIALOGUE), true_edges(), strict=True):
        said = turn.words.split()
        step = (end - begin) / len(said)
        words += [Word(word, begin + i * step, begin + (i + 1) * step) for i, word in enumerate(said)]
    return words


def assert_at_clips(spans) -> None:
    for span, (begin, end) in zip(spans, true_edges(), strict=True):
        assert begin - PAUSE_S <= span.start_s < span.end_s <= end + PAUSE_S
        assert span.seconds > 0.7 * (end - begin)


@given(st.integers(1, 4), st.integers(0, 4), st.data())
def test_the_cheapest_order_is_that_of_trying_all(n_rows, n_more, data):
    n_columns = n_rows + n_more
    costs = st.lists(st.integers(0, 20), min_size=n_columns, max_size=n_columns)
    cost = np.array(data.draw(st.lists(costs, min_size=n_rows, max_size=n_rows)), dtype=float)
    chosen = cheapest_in_order(cost)
    assert all(a < b for a, b in itertools.pairwise(chosen))
    best = min(sum(cost[r, c] for r, c in enumerate(way)) for way in itertools.combinations(range(n_columns), n_rows))
    assert sum(cost[r, c] for r, c in enumerate(chosen)) == best


@pytest.mark.parametrize("words", [[], true_words(), true_words()[:9] + true_words()[-4:]], ids=["none", "all", "some"])
def test_turns_are_found_by_words(words):
    aligner = load_aligner("words", "cpu")
    assert_at_clips(spans_of(aligner, joined(DIALOGUE), turns(DIALOGUE), "en", Heard("", words)))


def test_turns_are_found_by_length_of_text():
    aligner = load_aligner("proportional", "cpu")
    assert_at_clips(spans_of(aligner, joined(DIALOGUE), turns(DIALOGUE), "en", Heard("")))


@pytest.mark.parametrize("name", ["words", "proportional"])
@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(80, np.float32), clip("slt_wish")])
def test_borders_ascend_whatever_the_sound(name, samples):
    script = [Turn(1 + k % 2, f"Turn number {k}.") for k in range(7)]
    borders = load_aligner(name, "cpu").borders(samples, script, "en", Heard("turn number"))
    assert len(borders) == 6
    assert borders == sorted(borders)
    assert borders[0] >= 0
    spans = spans_of(load_aligner(name, "cpu"), samples, script, "en", Heard(""))
    assert all(span.seconds >= 0 for span in spans)


def test_a_single_turn_is_the_whole_clip_without_its_silent_ends():
    [span] = spans_of(load_aligner("words", "cpu"), joined(["slt_wish"]), turns(["slt_wish"]), "en", Heard(""))
    assert 0.1 <= span.start_s < 0.4
    assert span.end_s <= len(joined(["slt_wish"])) / RATE - PAUSE_S + 0.01


def planted(labels: list[int], n_labels: int = 5) -> "np.ndarray":
    """Log-probabilities that are sure of one label a frame."""
    emission = np.full((len(labels), n_labels), -20.0, np.float32)
    emission[np.arange(len(labels)), labels] = 0.0
    return emission


def test_forced_alignment_finds_planted_letters():
    import torch

    from sglang_moss.evaluation.aligners.mms import aligned_borders

    frames = [0, 0, 1, 1, 0, 2, 0, 0, 0, 3, 0, 4, 4, 0, 0, 1]
    borders = aligned_borders(torch.from_numpy(planted(frames)), [[1, 2], [3, 4], [1]], seconds=16.0)
    assert borders == [(6 + 9) / 2, (13 + 15) / 2]
    with_mute_turn = aligned_borders(torch.from_numpy(planted(frames)), [[1, 2], [], [3, 4, 1]], seconds=16.0)
    assert with_mute_turn == [7.5, 7.5]


def test_more_letters_than_frames_are_refused():
    import torch

    from sglang_moss.evaluation.aligners.mms import aligned_borders

    with pytest.raises(CannotJudge, match=r"30 letters, too many for 0\.1 s"):
        aligned_borders(torch.from_numpy(planted([1, 2, 3])), [[1, 2, 3] * 10], seconds=0.06)
    with pytest.raises(CannotJudge, match="no letter"):
        aligned_borders(torch.from_numpy(planted([1, 2, 3])), [[], []], seconds=0.06)


@pytest.mark.parametrize("seconds", [0.5, 29.99, 30.0, 61.3])
def test_emissions_of_windows_are_those_of_one_pass(seconds):
    import torch

    from sglang_moss.evaluation.aligners.mms import emissions

    def network(waveform):  # looks at a frame of 320 samples alone, and only at its sign
        frames = waveform[:, : waveform.shape[1] // 320 * 320].reshape(1, -1, 320)
        positive = (frames.mean(dim=-1, keepdim=True) > 0).float()
        return torch.cat([positive, 1 - positive], dim=-1) * 10, None

    n_frames = int(seconds * RATE) // 320
    signs = np.random.default_rng(1).choice([-0.5, 0.5], n_frames)
    samples = np.repeat(signs, 320).astype(np.float32)
    found = emissions(network, samples, "cpu")
    assert found.shape == (n_frames, 2)
    np.testing.assert_array_equal(found.argmax(dim=1).numpy(), (signs < 0).astype(int))
