"""Clips to waveforms: the server's own up to its limits, and pieces of any length beyond."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden_data import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.preparation import normalize_loudness, prepare_reference, to_mono
from sglang_moss.errors import BadReference
from sglang_moss.training.data import clips
from sglang_moss.training.data.clips import ClipTask, decode_clip
from sglang_moss.training.data.errors import BadRecord
from sglang_moss.training.data.long_clips import Resampler, write_waveform

pytestmark = pytest.mark.wide

RATE, FRAME = 24_000, 1920
CLIPS = sorted((GOLDEN / "cases" / "audio").glob("spk*"))
ANY_LENGTH = 10**12


def sound(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """[L, channels]: tones below 4 kHz."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * t + draw.uniform(0, 6)) for f in (110, 310, 1270, 3100))
    envelope = np.interp(t, np.arange(0, seconds + 1, 0.5), draw.uniform(0, 0.2, len(np.arange(0, seconds + 1, 0.5))))
    return np.stack([tones * envelope * (1 + c) / 2 for c in range(channels)], axis=1)


def decode(path: Path, folder: Path, *, is_reference: bool = False, max_samples: int = ANY_LENGTH) -> np.ndarray:
    found = decode_clip(ClipTask(path, is_reference, max_samples, folder / "w"), RATE, FRAME)
    waveform = np.fromfile(found.waveform, np.float32)
    assert found.n_frames == len(waveform) // FRAME
    return waveform


def in_pieces(path: Path, folder: Path, max_samples: int = ANY_LENGTH) -> np.ndarray:
    with (folder / "long").open("w+b") as file:
        clip = write_waveform(path, RATE, ReferenceLimits(), max_samples, file)
    waveform = np.memmap(folder / "long", np.float32, "r")
    assert clip.n_samples == len(waveform)
    return waveform


@pytest.mark.parametrize("is_reference", [True, False])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_short_clips_are_what_the_server_makes_of_them(tmp_path, clip, is_reference):
    expected = prepare_reference(clip.read_bytes(), RATE, ReferenceLimits(), 0)
    assert np.array_equal(decode(clip, tmp_path, is_reference=is_reference), expected)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_pieces_of_a_short_clip_are_nearly_the_same(tmp_path, clip):
    """Near the ends a whole clip's FFT hears the other end, pieces hear silence."""
    if soundfile.info(clip).frames * RATE % soundfile.info(clip).samplerate:
        pytest.skip("its length is no whole number of samples at the codec's rate, so a whole clip is stretched")
    expected = prepare_reference(clip.read_bytes(), RATE, ReferenceLimits(), 0)
    waveform = in_pieces(clip, tmp_path)
    assert len(waveform) == len(expected)
    inside = slice(600, -600)
    assert np.abs(waveform - expected)[inside].max() < 2e-3 * np.abs(expected).max()


@settings(max_examples=8, derandomize=True)
@given(rate=st.sampled_from([8000, 11_025, 44_100, 48_000, 44_101, RATE]), seed=st.integers(0, 9))
def test_blocks_are_resampled_as_a_whole_clip(rate, seed):
    samples = sound(45 + seed / 7, rate, seed=seed)[:, 0]
    samples = samples[: len(samples) // rate * rate]  # else a whole clip is stretched to the next sample
    samples[:2000] *= np.linspace(0, 1, 2000)  # silent ends, as both ways then hear the same behind them
    samples[-2000:] *= np.linspace(1, 0, 2000)
    resampler, out = Resampler(rate, RATE), []
    draw = np.random.default_rng(seed)
    for piece in np.split(samples, np.sort(draw.integers(0, len(samples), 9))):
        out += resampler.feed(piece)
    got = np.concatenate([*out, resampler.finish()])
    expected = to_mono(samples[:, None], rate, RATE)
    assert got.dtype == np.float32
    assert len(got) == len(expected) == len(samples) * RATE // rate
    assert np.abs(got - expected).max() < 1e-4


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3"])
def test_a_clip_beyond_the_servers_limit_is_whole_and_level(tmp_path, form):
    samples, rate = sound(70, 44_100, channels=2), 44_100  # a whole number of samples at either rate
    path = tmp_path / f"clip.{form}"
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for start in range(0, len(samples), rate):  # libsndfile's Vorbis encoder overflows on more at a time
            file.write(samples[start : start + rate])
    waveform = decode(path, tmp_path)
    expected = normalize_loudness(to_mono(samples, rate, RATE))
    assert abs(len(waveform) - len(expected)) <= (2500 if form == "mp3" else 0)
    assert abs(np.sqrt(np.mean(waveform**2)) - 0.1) < 1e-3  # -20 dBFS
    if form in ("wav", "flac"):
        assert np.abs(waveform - expected)[600:-600].max() < 1e-4


def test_memory_does_not_grow_with_a_clip(tmp_path):
    peaks = []
    for minutes in (2, 6):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 16_000, 1) as file:
            for minute in range(minutes):
                file.write(sound(60, 16_000, seed=minute))
        tracemalloc.start()
        waveform = in_pieces(path, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(waveform) == minutes * 60 * RATE
    assert peaks[1] < peaks[0] + 2**22


def test_what_is_no_clip_is_refused_with_a_sentence(tmp_path, monkeypatch):
    def refused(path: Path, sentence: str, **how) -> None:
        with pytest.raises(BadRecord, match=sentence) as refusal:
            decode(path, tmp_path, **how)
        assert str(path) in str(refusal.value)

    def written(name: str, samples: np.ndarray, rate: int = RATE) -> Path:
        soundfile.write(tmp_path / name, samples, rate)
        return tmp_path / name

    refused(tmp_path / "none.wav", "there is no such file")
    refused(tmp_path, "there is no such file")
    refused(Path("a\0b"), "there is no such file")
    (tmp_path / "text.wav").write_text("no sound")
    refused(tmp_path / "text.wav", "cannot be read as audio")
    refused(written("tiny.wav", sound(0.05, RATE)), "less than one frame of 0.08 s")
    refused(written("silent.wav", np.zeros(RATE)), "silent")
    long = written("long.wav", sound(70, 16_000), 16_000)
    refused(long, "at most 60 s", is_reference=True)
    refused(long, "more than the 65.00 s that --max-rows leaves", max_samples=65 * RATE)
    refused(written("short.wav", sound(2, RATE)), "more than the 1.00 s that --max-rows", max_samples=RATE)
    refused(written("silent-70.wav", np.zeros(70 * 16_000), 16_000), "silent")
    monkeypatch.setattr(clips, "LIMITS", ReferenceLimits(max_bytes=1000))
    refused(long, "at most 1000 bytes", is_reference=True)
    assert len(decode(long, tmp_path)) == 70 * RATE  # a target may be larger


def test_pieces_meet_the_same_limits(tmp_path):
    for samples, rate, sentence in (
        (np.full(RATE * 2, 20.0), RATE, "peaks beyond 10"),
        (np.full(RATE * 2, np.nan), RATE, "NaN"),
        (sound(1, 3000), 3000, "sample rates"),
    ):
        path = tmp_path / "clip.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        with pytest.raises(BadReference, match=sentence):
            in_pieces(path, tmp_path)
    file = io.BytesIO()
    soundfile.write(file, sound(1, RATE), RATE, format="AIFF")
    path.write_bytes(file.getvalue())
    with pytest.raises(BadReference, match="AIFF is not supported"):
        in_pieces(path, tmp_path)


def test_clipped_samples_are_counted(tmp_path):
    samples = np.clip(sound(2, RATE) * 20, -1, 1)
    soundfile.write(tmp_path / "loud.wav", samples, RATE)
    found = decode_clip(ClipTask(tmp_path / "loud.wav", False, ANY_LENGTH, tmp_path / "w"), RATE, FRAME)
    assert abs(found.clipped_share - np.mean(np.abs(samples) >= 0.9999)) < 1e-3
    assert found.clipped_share > 0.1
