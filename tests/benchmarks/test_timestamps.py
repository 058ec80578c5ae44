"""The benchmark of times of turns: its dialogues are what it says of them, and its errors are seconds."""

import numpy as np
import pytest

from sglang_moss.benchmarks import timestamps
from sglang_moss.benchmarks.timestamps import KINDS, by_share, errors_of, make

SENTENCES = ["One sentence.", "Another sentence, a longer one.", "And a third.", "A fourth."]
RATE = 16_000


@pytest.fixture(autouse=True)
def no_synthesizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence is as many samples at half of full scale as its text says."""
    monkeypatch.setattr(
        timestamps, "sentence", lambda _voice, _stretch, text: np.full(len(text) * 800, 0.5, np.float32)
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_dialogues_are_heard_where_they_are_said_to_be(kind: timestamps.Kind):
    for seed in range(5):
        dialogue = make(kind, SENTENCES, seed)
        assert len(dialogue.turns) == len(dialogue.times)
        assert kind.n_turns[0] <= len(dialogue.turns) <= kind.n_turns[1]
        n_speakers = len({turn.speaker for turn in dialogue.turns})
        assert kind.n_speakers[0] <= n_speakers <= kind.n_speakers[1]
        gaps = dialogue.times[1:, 0] - dialogue.times[:-1, 1]
        assert (gaps >= kind.pauses_s[0] - 1e-4).all()
        assert (gaps <= kind.pauses_s[1] + 1e-4).all()
        for (_, end), (begin, _) in zip(dialogue.times[:-1], dialogue.times[1:], strict=True):
            between = dialogue.pcm[round(end * RATE) : round(begin * RATE)]
            assert np.abs(between).max(initial=0) < 8_000  # noise alone
        for begin, end in dialogue.times:
            assert abs(int(dialogue.pcm[round(begin * RATE)])) > 8_000
            assert abs(int(dialogue.pcm[round(end * RATE) - 1])) > 8_000


def test_a_seed_is_one_dialogue():
    one, same, other = (make(KINDS[0], SENTENCES, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.pcm, same.pcm)
    assert one.turns == same.turns
    assert not np.array_equal(one.pcm, other.pcm)


def test_errors_are_of_both_sides_of_each_border():
    truth = np.array([(0.1, 1.0), (1.2, 2.0), (2.5, 3.0)])
    estimate = np.array([(0.0, 1.1), (1.2, 1.9), (2.2, 9.0)])
    assert errors_of(estimate, truth) == pytest.approx([0.1, 0.1, 0.0, 0.3])


def test_shares_fill_the_speech():
    dialogue = make(KINDS[0], SENTENCES, 3)
    whole, trimmed = by_share(dialogue, trimmed=False), by_share(dialogue, trimmed=True)
    assert (whole[0, 0], whole[-1, 1]) == (0.0, len(dialogue.pcm) / RATE)
    assert (trimmed[0, 0], trimmed[-1, 1]) == pytest.approx((dialogue.times[0, 0], dialogue.times[-1, 1]))
    assert np.array_equal(whole[1:, 0], whole[:-1, 1])
