"""Flags on sound that is wrong in one way, and none on speech."""

import numpy as np
import pytest
from judged_speech import DIALOGUE, RATE, clip, joined, silence, turns

from sglang_moss.evaluation.clips import pauses_in, sounding
from sglang_moss.evaluation.signal_checks import check_signal, clipped_samples
from sglang_moss.server.speech.parts import Turn

pytestmark = pytest.mark.wide


def flags(samples: np.ndarray, names=DIALOGUE) -> list[str]:
    return check_signal(samples, samples, turns(names)).flags


@pytest.fixture(scope="module")
def dialogue() -> np.ndarray:
    return joined(DIALOGUE)


def test_speech_has_no_flag(dialogue):
    score = check_signal(dialogue, dialogue, turns(DIALOGUE))
    assert score.flags == []
    assert score.seconds == pytest.approx(len(dialogue) / RATE)
    assert 10 < score.letters_per_second < 20


@pytest.mark.parametrize("gain", [0.02, 0.3, 1.0])
def test_flags_do_not_depend_on_loudness(dialogue, gain):
    assert flags(dialogue * np.float32(gain)) == []


def test_silence_is_found_and_is_the_only_flag():
    assert flags(silence(5)) == ["silent"]
    assert flags(np.random.default_rng(0).normal(0, 1e-4, 5 * RATE).astype(np.float32)) == ["silent"]


def test_clipping_is_found(dialogue):
    assert flags(np.clip(dialogue * 8, -1, 1)) == ["clipped"]


def test_single_peaks_are_no_clipping():
    samples = np.zeros(1000, np.float32)
    samples[[10, 20, 21]] = 1.0  # two in a row may be a wave
    assert clipped_samples(samples) == 0
    samples[30:35] = -1.0
    assert clipped_samples(samples) == 5


def test_cut_ends_are_found(dialogue):
    sound = sounding(dialogue)
    middle = round((sound.start_s + 0.5) * RATE)  # in "morning"
    assert flags(dialogue[middle:]) == ["cut_start"]
    loud = round((sound.end_s - 0.25) * RATE)
    assert flags(dialogue[:loud]) == ["cut_end"]


def test_long_silences_are_found_at_both_ends_and_inside():
    names = DIALOGUE[:2]
    first, second = map(clip, names)
    assert flags(np.concatenate([first, silence(0.4), second]), names) == []
    assert flags(np.concatenate([first, silence(1.6), second]), names) == ["long_silence"]
    assert flags(np.concatenate([silence(2.1), first, second]), names) == ["long_silence"]
    assert flags(np.concatenate([first, second, silence(2.1)]), names) == ["long_silence"]


def test_length_is_held_against_the_text(dialogue):
    assert check_signal(dialogue, dialogue, [Turn(1, "Yes. " * 5)]).flags == ["too_slow"]
    assert check_signal(dialogue, dialogue, [Turn(1, "These words take much longer. " * 20)]).flags == ["too_fast"]


def test_pauses_are_where_silence_was_put():
    samples = np.concatenate([clip("rms_question"), silence(0.5), clip("slt_wish")])
    begin = len(clip("rms_question")) / RATE
    assert any(p.start_s <= begin + 0.01 and p.end_s >= begin + 0.49 for p in pauses_in(samples))
