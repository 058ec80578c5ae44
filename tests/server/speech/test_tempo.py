"""Speech faster and slower: as long as it should be, of the same pitch, and the same however it comes."""

import numpy as np
import pytest
from sound_files import RATE

from sglang_moss.server.speech.encoding import make_encoder
from sglang_moss.server.speech.tempo import StretchingEncoder, Tempo

SPEEDS = (0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0)
HERTZ = 220


def tone(seconds: float) -> np.ndarray:
    return np.rint(6000 * np.sin(2 * np.pi * HERTZ * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)


def stretched(pcm: np.ndarray, speed: float, chunk: int) -> np.ndarray:
    tempo = Tempo(speed, RATE)
    pieces = [tempo.add(pcm[i : i + chunk]) for i in range(0, len(pcm), chunk)]
    return np.concatenate([*pieces, tempo.finish()])


@pytest.mark.parametrize("speed", SPEEDS)
def test_length_changes_and_pitch_does_not(speed: float):
    heard = stretched(tone(4), speed, 1920)
    assert len(heard) / RATE == pytest.approx(4 / speed, abs=0.05)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * RATE / len(heard) == pytest.approx(HERTZ, rel=0.02)
    assert np.sqrt(np.mean(heard[RATE // 4 : -RATE // 4].astype(float) ** 2)) == pytest.approx(6000 / 2**0.5, rel=0.1)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("chunk", [17, 777, 1920, 24_000])
def test_pieces_make_no_difference(speed: float, chunk: int):
    noise = np.random.default_rng(0).integers(-3000, 3000, RATE).astype(np.int16)
    np.testing.assert_array_equal(stretched(noise, speed, chunk), stretched(noise, speed, len(noise)))


@pytest.mark.parametrize("n_samples", [0, 1, 100, 1920])
def test_next_to_nothing_is_stretched_without_a_fault(n_samples: int):
    assert len(stretched(tone(1)[:n_samples], 2.0, 500)) <= n_samples


def test_what_is_stretched_leaves_while_it_comes():
    tempo = Tempo(0.8, RATE)
    out = [len(tempo.add(piece)) for piece in np.split(tone(4), 50)]
    assert sum(out[:25]) >= 0.9 * RATE * 2 / 0.8


def test_the_encoder_gets_what_was_stretched():
    encoder = StretchingEncoder(make_encoder("pcm", RATE), 1.25, RATE)
    data = b"".join(encoder.encode(piece) for piece in np.split(tone(2), 20)) + encoder.finish()
    np.testing.assert_array_equal(np.frombuffer(data, "<i2"), stretched(tone(2), 1.25, 48_000))
