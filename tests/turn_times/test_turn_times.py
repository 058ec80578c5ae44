"""Times of turns: the cheapest division is that of trying all, and where pauses and voices are plain, they are met."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.benchmarks.loads.synthetic_voice import synthetic_speech
from sglang_moss.request.turns import Turn
from sglang_moss.turn_times.estimate import _fewer, _Problem
from sglang_moss.turn_times.sound import FRAME_S, N_FEATURES, Stretches, stretches_of
from sglang_moss.turn_times.timing import turn_times

RATE = 24_000
MAX_OFF_S = 0.03  # the estimate is made of frames of 10 ms, softened over three of them
LETTERS_PER_SECOND = 13


def words(seconds: float) -> str:
    return "a" * round(seconds * LETTERS_PER_SECOND)


def tone(seconds: float, hz: float, seed: int = 0) -> np.ndarray:
    """[L] float64 of an even vowel: harmonics that fall, with a little noise."""
    t = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 12))
    return 0.15 * (np.asarray(sound) + 0.02 * np.random.default_rng(seed).standard_normal(len(t)))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE))


def pcm(*pieces: np.ndarray) -> np.ndarray:
    return np.rint(np.concatenate(pieces) * 32_767).astype(np.int16)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Stretches, np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 7))
    n_turns = draw(st.integers(1, n))
    lengths = draw(st.lists(st.integers(5, 150), min_size=n, max_size=n))
    pauses = draw(st.lists(st.integers(0, 70), min_size=n, max_size=n))
    start = np.cumsum([pauses[0], *(a + b for a, b in zip(lengths[:-1], pauses[1:], strict=True))])
    end = start + np.array(lengths)
    seed = draw(st.integers(0, 2**32 - 1))
    features = np.random.default_rng(seed).standard_normal((n, N_FEATURES))
    expected = np.array(draw(st.lists(st.floats(0.2, 3), min_size=n_turns, max_size=n_turns)))
    speakers = np.array(draw(st.lists(st.integers(0, 1), min_size=n_turns, max_size=n_turns)))
    return Stretches(start, end, features, int(end[-1])), expected, speakers


@settings(max_examples=150)
@given(problems(), st.integers(0, 2**32 - 1))
def test_the_cheapest_division_is_that_of_trying_all(problem, seed):
    stretches, expected, speakers = problem
    solver, n, n_turns = _Problem(stretches, expected, speakers), len(stretches), len(expected)
    random = np.random.default_rng(seed)
    voice = np.concatenate([np.zeros((2, 1)), np.cumsum(random.random((2, n)), axis=1)], axis=1)
    tempo = solver.scale * random.uniform(0.8, 1.2, n_turns)

    def cost(ends: tuple[int, ...]) -> float:
        total, begin = 0.0, 0
        for k, end in enumerate(ends):
            total += solver.length_cost(stretches.end[end - 1] - stretches.start[begin], expected[k] * tempo[k])
            total += voice[speakers[k], end] - voice[speakers[k], begin] + (solver.border[begin] if k else 0.0)
            begin = end
        return total

    ways = [(*inner, n) for inner in itertools.combinations(range(1, n), n_turns - 1)]
    found = tuple(solver.solve(tempo, voice).tolist())
    assert found in ways
    assert cost(found) == pytest.approx(min(map(cost, ways)))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["silence", "noise", "tone", "speech"]), st.floats(0, 1.5)), max_size=5),
    st.lists(st.tuples(st.sampled_from([None, 1, 2, 3]), st.floats(0.1, 4)), min_size=1, max_size=12),
    st.booleans(),
)
def test_whatever_is_heard_turns_follow_each_other_within_it(sounds, said, is_cut):
    made = {
        "silence": silence,
        "noise": lambda s: 0.1 * np.random.default_rng(1).standard_normal(round(s * RATE)),
        "tone": lambda s: tone(s, 150),
        "speech": lambda s: synthetic_speech(round(s * RATE), 3) if round(s * RATE) else silence(0),
    }
    samples = pcm(silence(0.001), *(made[name](seconds) for name, seconds in sounds))
    turns = [Turn(speaker, words(seconds) or "a") for speaker, seconds in said]
    times = turn_times(samples, RATE, turns, is_cut=is_cut)
    assert 1 <= len(times) <= len(turns)
    assert is_cut or len(times) == len(turns)
    flat = times.reshape(-1)
    assert (np.diff(flat) >= 0).all()
    assert (times[:, 1] > times[:, 0]).all()
    assert flat[0] >= 0
    assert flat[-1] <= len(samples) / RATE + 1e-9


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0.5, 3), st.floats(0.15, 0.5)), min_size=2, max_size=6), st.floats(0.7, 1.4))
def test_turns_without_pauses_of_their_own_are_met(spoken, tempo):
    pieces, times, at = [silence(0.1)], [], 0.1
    for k, (seconds, pause) in enumerate(spoken):
        pieces += [tone(seconds * tempo, 110 if k % 2 else 210, seed=k), silence(pause)]
        times.append((at, at + seconds * tempo))
        at += seconds * tempo + pause
    found = turn_times(pcm(*pieces), RATE, [Turn(1 + k % 2, words(s)) for k, (s, _) in enumerate(spoken)])
    assert np.abs(found - np.array(times)).max() <= MAX_OFF_S


def test_a_voice_tells_a_turns_end_where_length_and_pause_tell_another():
    low, high = 110, 210
    samples = pcm(tone(2.0, low), silence(0.2), tone(1.2, low), silence(0.2), tone(2.0, high), tone(0.8, high))
    first = ["a" * 30, "a" * 42]  # by its text alone the first turn would end at the first pause
    turns = [Turn(1, first[0]), Turn(2, first[1]), Turn(1, "a" * 26), Turn(2, "a" * 26)]
    more = pcm(silence(0.2), tone(2.0, low), silence(0.2), tone(2.0, high))
    found = turn_times(np.concatenate([samples, more]), RATE, turns)
    assert found[0, 1] == pytest.approx(3.4, abs=MAX_OFF_S)
    assert found[1, 0] == pytest.approx(3.6, abs=MAX_OFF_S)


@pytest.mark.parametrize("border", [1, 2, 3])
def test_lengths_tell_which_of_equal_pauses_is_between_two_turns(border: int):
    lengths = [1.0, 1.4, 0.8, 1.6]
    samples = pcm(*(piece for s in lengths for piece in (tone(s, 150), silence(0.25))))
    turns = [Turn(1, words(sum(part))) for part in (lengths[:border], lengths[border:])]
    end = sum(lengths[:border]) + 0.25 * (border - 1)
    found = turn_times(samples, RATE, turns)
    assert (found[0, 1], found[1, 0]) == pytest.approx((end, end + 0.25), abs=MAX_OFF_S)


@pytest.mark.parametrize("border", [1, 2])
def test_of_two_places_that_lengths_like_alike_the_longer_pause_is_between_turns(border: int):
    pauses = [0.5 if k == border else 0.06 for k in (1, 2)]
    samples = pcm(tone(1.0, 150), silence(pauses[0]), tone(0.4, 150), silence(pauses[1]), tone(1.0, 150))
    found = turn_times(samples, RATE, [Turn(1, "a" * 16), Turn(1, "a" * 16)])
    end = 1.0 if border == 1 else 1.4 + pauses[0]
    assert (found[0, 1], found[1, 0]) == pytest.approx((end, end + 0.5), abs=MAX_OFF_S)


def test_without_a_pause_turns_meet_where_the_level_dips():
    dip = np.concatenate([np.linspace(1, 0.05, 1_200), np.linspace(0.05, 1, 1_200)])
    one, two = tone(1.6, 110), tone(1.6, 210)
    one[-1_200:] *= dip[:1_200]
    two[:1_200] *= dip[1_200:]
    found = turn_times(pcm(one, two), RATE, [Turn(1, words(1.6)), Turn(2, words(1.6))])
    assert found[0, 1] == found[1, 0]
    assert found[0, 1] == pytest.approx(1.6, abs=MAX_OFF_S)


def test_of_a_speech_that_is_cut_turns_are_told_that_were_reached():
    samples = pcm(tone(2.0, 110), silence(0.3), tone(2.0, 210), silence(0.3), tone(0.5, 110))
    turns = [Turn(1 + k % 2, words(2.0)) for k in range(6)]
    found = turn_times(samples, RATE, turns, is_cut=True)
    assert np.abs(found - np.array([(0, 2.0), (2.3, 4.3), (4.6, 5.1)])).max() <= MAX_OFF_S


def test_of_many_stretches_the_longest_pauses_stay():
    start, end = np.array([0, 12, 30, 50, 63]), np.array([10, 20, 40, 60, 70])
    features = np.arange(5.0)[:, None] + np.zeros(N_FEATURES)
    features[3, -1] = np.nan
    fewer = _fewer(Stretches(start, end, features, 80), 3)
    assert fewer.start.tolist() == [0, 30, 50]
    assert fewer.end.tolist() == [20, 40, 70]
    assert fewer.features[:, 0] == pytest.approx([8 / 18, 2, (3 * 10 + 4 * 7) / 17])
    assert fewer.features[2, -1] == 4
    assert len(_fewer(fewer, 3)) == 3


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_stretches_lie_between_pauses_at_any_rate(rate):
    t = np.arange(rate) / rate
    vowel = 0.3 * np.sin(2 * np.pi * 200 * t)
    samples = np.concatenate([np.zeros(rate // 5), vowel, np.zeros(rate // 5), vowel[: rate // 2]])
    found = stretches_of(np.rint(samples * 32_767).astype(np.int16), rate)
    times = np.stack([found.start, found.end], axis=1) * FRAME_S
    assert np.abs(times - np.array([(0.2, 1.2), (1.4, 1.9)])).max() <= MAX_OFF_S
    assert found.pauses == pytest.approx([0.2], abs=MAX_OFF_S)
    assert np.exp(found.features[:, -1]) == pytest.approx([200, 200], rel=0.02)


def test_a_long_speech_is_divided_as_its_blocks_never_were():
    """Features are made 20 s at a time."""
    samples = synthetic_speech(45 * RATE, seed=5)
    whole = stretches_of(pcm(samples), RATE)
    shifted = stretches_of(pcm(silence(7), samples), RATE)
    assert np.array_equal(shifted.start - 700, whole.start)
    assert np.allclose(shifted.features, whole.features, rtol=1e-4, atol=1e-4, equal_nan=True)
