"""Audio files written as the samples come: what a reader gets back."""

import io
import wave
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from sound_files import RATE, best_match, decoded

from sglang_moss.server.speech.encoding import make_encoder, media_type
from sglang_moss.server.speech.fields import AudioFormat

LOSSLESS = ("wav", "pcm", "flac")
LOSSY = ("mp3", "opus", "aac")


def music(n_samples: int, rate: int = RATE) -> np.ndarray:
    """Three tones that come and go."""
    t = np.arange(n_samples) / rate
    tones = sum(np.sin(2 * np.pi * f * t) * np.sin(np.pi * f / 300 * t) ** 2 for f in (220, 370, 610))
    return np.rint(6000 * tones).astype(np.int16)


def encoded(audio_format: Any, pcm: np.ndarray, chunk: int, rate: int = RATE) -> list[bytes]:
    encoder = make_encoder(audio_format, rate)
    pieces = [encoder.encode(pcm[i : i + chunk]) for i in range(0, len(pcm), chunk)]
    return [*pieces, encoder.finish()]


@pytest.mark.parametrize("chunk", [960, 1920, 20_000])
@pytest.mark.parametrize("audio_format", LOSSLESS)
def test_lossless_formats_give_every_sample_back(audio_format: str, chunk: int):
    pcm = music(50_001)
    heard = decoded(audio_format, b"".join(encoded(audio_format, pcm, chunk)))
    np.testing.assert_array_equal(heard, pcm)


@pytest.mark.parametrize("rate", [RATE, 16_000, 44_100, 31_000])
@pytest.mark.parametrize("audio_format", LOSSY)
def test_lossy_formats_sound_the_same_at_the_same_length(audio_format: str, rate: int):
    pcm = music(rate, rate)
    heard = decoded(audio_format, b"".join(encoded(audio_format, pcm, 1920, rate)), rate)
    assert len(pcm) - 32 <= len(heard) <= len(pcm) + 0.15 * rate
    assert best_match(heard, pcm) > 0.98


@pytest.mark.parametrize("audio_format", get_args(AudioFormat))
def test_sound_leaves_while_it_is_made(audio_format: str):
    """After each second, but for a quarter of one, what came before can be decoded."""
    pcm = music(3 * RATE)
    pieces = encoded(audio_format, pcm, RATE)
    for n in (1, 2, 3):
        assert len(decoded(audio_format, b"".join(pieces[:n]))) >= (n - 0.25) * RATE


@pytest.mark.parametrize("n_samples", [1, 700, 50_001])
@pytest.mark.parametrize("audio_format", get_args(AudioFormat))
def test_a_whole_file_comes_at_once_and_knows_its_length(audio_format: Any, n_samples: int):
    pcm = music(n_samples)
    encoder = make_encoder(audio_format, RATE, growing=False)
    assert [encoder.encode(pcm[i : i + 900]) for i in range(0, len(pcm), 900)] == [b""] * -(-n_samples // 900)
    data = encoder.finish()
    if audio_format in LOSSLESS:
        np.testing.assert_array_equal(decoded(audio_format, data), pcm)
    elif n_samples > RATE:
        assert best_match(decoded(audio_format, data), pcm) > 0.98
    if audio_format in ("wav", "flac"):
        heard, rate = soundfile.read(io.BytesIO(data), dtype="int16")
        np.testing.assert_array_equal(heard, pcm)
        assert (rate, soundfile.info(io.BytesIO(data)).frames) == (RATE, n_samples)
    if audio_format == "wav":
        with wave.open(io.BytesIO(data)) as file:
            assert file.getnframes() == n_samples


@pytest.mark.parametrize("audio_format", get_args(AudioFormat))
def test_one_sample_makes_a_file(audio_format: str):
    data = b"".join(encoded(audio_format, music(1), 1))
    assert data
    assert media_type(audio_format).startswith("audio/")


def test_a_wav_of_unknown_length_is_read_whole_by_others_too():
    pcm = music(5000)
    heard, rate = soundfile.read(io.BytesIO(b"".join(encoded("wav", pcm, 700))), dtype="int16")
    np.testing.assert_array_equal(heard, pcm)
    assert rate == RATE
