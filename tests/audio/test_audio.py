"""Reference audio: parity of loading and preparation with the served path, hostile files, and WAV in base64."""

import base64
import hashlib
import io
import json
import wave
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from golden_data import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.audio.loading import ReferenceLimits, load_audio
from sglang_moss.audio.preparation import concatenate_references, normalize_loudness, prepare_reference, to_mono
from sglang_moss.audio.wav import WavBase64, wav_bytes
from sglang_moss.benchmarks.hostile.audio import encoded, flac_that_announces
from sglang_moss.codec.pcm import to_pcm16
from sglang_moss.errors import BadReference, MossError

CLIPS = GOLDEN / "cases" / "audio"
E2E = GOLDEN / "cases" / "e2e"
INDEX = json.loads((CLIPS / "index.json").read_text(encoding="utf-8"))
PREPARED = np.load(GOLDEN / "cases" / "audio_prep" / "audio_prep.npz")
PREPARATION = json.loads((GOLDEN / "cases" / "audio_prep" / "audio_prep.json").read_text(encoding="utf-8"))
E2E_NPZ = np.load(E2E / "e2e.npz")
REQUESTS = {path.name.removesuffix(".request.json"): path for path in sorted(E2E.glob("*.request.json"))}
WITH_REFERENCES = [key for key in REQUESTS if f"{key}.reference_codes.0" in E2E_NPZ]
CODEC = json.loads((GOLDEN / "codec" / "config.json").read_text(encoding="utf-8"))
RATE = json.loads((GOLDEN / "ttsd" / "config.json").read_text(encoding="utf-8"))["sampling_rate"]
LIMITS = ReferenceLimits()


def clip(name: str) -> bytes:
    return (CLIPS / name).read_bytes()


def audio_file(samples: np.ndarray, rate: int = RATE, container: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def noise(n_samples: int, n_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-0.5, 0.5, (n_samples, n_channels))


@pytest.mark.parametrize("name", INDEX)
def test_decoded_samples_are_those_of_the_file(name):
    samples, rate = load_audio(clip(name), LIMITS, 0)
    assert samples.dtype == np.float64
    assert (rate, *samples.shape) == (INDEX[name]["sampling_rate"], INDEX[name]["samples"], INDEX[name]["channels"])
    int16 = (samples * 32768).astype("<i2")
    assert hashlib.sha256(int16.tobytes()).hexdigest() == INDEX[name]["sha256_int16_le"]


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_decoding_equals_soundfile_read(container):
    data = audio_file(noise(50_001, 2), container=container)
    np.testing.assert_array_equal(load_audio(data, LIMITS, 0)[0], soundfile.read(io.BytesIO(data), always_2d=True)[0])


@pytest.mark.parametrize("case", PREPARATION["loading_and_resampling"], ids=lambda case: case["file"])
def test_resampling_equals_the_served_one(case):
    mono = to_mono(*load_audio(clip(case["file"]), LIMITS, 0), RATE)
    assert mono.dtype == np.float32
    assert len(mono) == case["served_samples"]
    if case["stored"]:
        # An FFT of another build may round differently; float32 output hides all but the last bit of it.
        np.testing.assert_allclose(mono, PREPARED[f"load.{case['file']}.served"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", PREPARATION["loudness"], ids=lambda case: f"rms {case['rms']}")
def test_loudness_equals_the_served_one(case):
    normalized = normalize_loudness(PREPARED[f"loudness.{case['i']}.input"])
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, PREPARED[f"loudness.{case['i']}.served"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", WITH_REFERENCES)
def test_prepared_references_have_the_frames_of_the_end_to_end_runs(key):
    frame_samples = CODEC["downsample_rate"]
    waveforms = []
    for position, source in enumerate(json.loads(REQUESTS[key].read_text(encoding="utf-8"))["audio_data"]):
        data = clip(source[7:]) if source.startswith("@audio/") else base64.b64decode(source.partition(",")[2])
        waveforms.append(prepare_reference(data, RATE, LIMITS, position))
        assert len(waveforms[-1]) // frame_samples == len(E2E_NPZ[f"{key}.reference_codes.{position}"])
    prompt_audio = concatenate_references(waveforms)
    assert prompt_audio.dtype == np.float32
    assert len(prompt_audio) // frame_samples == len(E2E_NPZ[f"{key}.continuation_codes"])


def test_prompt_audio_is_the_prepared_clips_without_a_second_loudness_pass():
    quiet, loud = (prepare_reference(audio_file(noise(4_800) * level), RATE, LIMITS, 0) for level in (0.01, 1.0))
    np.testing.assert_array_equal(concatenate_references([quiet, loud]), np.concatenate([quiet, loud]))
    assert np.abs(loud).max() > 10 * np.abs(quiet).max()


def test_reference_below_one_frame_has_no_codes_and_is_refused():
    frame = CODEC["downsample_rate"]
    assert prepare_reference(audio_file(noise(frame)), RATE, LIMITS, 0, frame).shape == (frame,)
    with pytest.raises(BadReference, match=r"reference 1: the clip lasts 0.080 s, less than one frame of 0.08 s"):
        prepare_reference(audio_file(noise(frame - 1)), RATE, LIMITS, 0, frame)


@given(
    n_samples=st.integers(2, 3_000),
    rate=st.sampled_from([4_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000]),
    n_channels=st.integers(1, 8),
)
@settings(max_examples=40)
def test_prepared_length_is_the_next_lower_number_of_samples(n_samples, rate, n_channels):
    data = audio_file(noise(n_samples, n_channels), rate)
    expected = int(n_samples * RATE / rate)
    if expected == 0:
        with pytest.raises(BadReference, match="less than one"):
            prepare_reference(data, RATE, LIMITS, 0)
        return
    waveform = prepare_reference(data, RATE, LIMITS, 0)
    assert waveform.dtype == np.float32
    assert waveform.shape == (expected,)
    assert np.isfinite(waveform).all()


REFUSED = {
    "no bytes": (b"", "no bytes"),
    "text": (b"this is no audio file at all", "cannot be read as audio"),
    "html": (b"<html><body>404</body></html>" * 50, "cannot be read as audio"),
    "half a header": (audio_file(noise(100))[:20], "cannot be read as audio"),
    "no sample": (audio_file(noise(0)), "holds no sample"),
    "another format": (audio_file(noise(100), container="AIFF"), "AIFF is not supported"),
    "nine channels": (audio_file(noise(10, 9)), "1 to 8 channels, got 9"),
    "low rate": (audio_file(noise(100), rate=3_999), "4000 to 384000 Hz, got 3999"),
    "high rate": (audio_file(noise(100), rate=384_001), "got 384001"),
    "a sample too long": (audio_file(np.zeros(60 * 4_000 + 1), rate=4_000, container="FLAC"), "lasts at most 60 s"),
    "too many values": (audio_file(np.zeros((750_001, 8)), rate=48_000, container="FLAC"), "at most 6000000 samples"),
    "NaN": (audio_file(np.array([0.0, np.nan]), subtype="FLOAT"), "NaN or infinite"),
    "infinity": (audio_file(np.array([0.0, np.inf]), subtype="DOUBLE"), "NaN or infinite"),
    "integers as floats": (audio_file(np.array([0.0, -32768.0]), subtype="FLOAT"), "full scale is 1.*got 3.28e"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_names_the_reference_and_what_is_wrong(name):
    data, problem = REFUSED[name]
    with pytest.raises(BadReference, match=f"^reference 3: .*{problem}"):
        prepare_reference(data, RATE, LIMITS, 2)


def test_clip_at_every_limit_passes():
    limits = ReferenceLimits(max_seconds=0.25, max_channels=2, max_rate=8_000, min_rate=8_000, max_values=4_000)
    data = audio_file(np.tile([[1.0], [-1.0]], (1_000, 2)), 8_000, subtype="DOUBLE")
    assert load_audio(data, limits, 0)[0].shape == (2_000, 2)
    with pytest.raises(BadReference, match=rf"at most {len(data) - 1} bytes, got {len(data)}"):
        load_audio(data, ReferenceLimits(max_bytes=len(data) - 1), 0)


@pytest.mark.parametrize("announced", [0, 1_000, 2**36 - 1])
def test_a_flac_is_read_to_its_end_whatever_it_announces(announced):
    flac = audio_file(noise(30_000), container="FLAC")
    expected = load_audio(flac, LIMITS, 0)[0]
    np.testing.assert_array_equal(load_audio(flac_that_announces(announced, flac), LIMITS, 0)[0], expected)
    with pytest.raises(BadReference, match="lasts at most 1 s"):
        load_audio(flac_that_announces(announced, flac), ReferenceLimits(max_seconds=1), 0)


@pytest.mark.parametrize("announced", [0, 480, 2**32 - 1, 2**31])
@pytest.mark.parametrize("more", [b"", b"LIST\4\0\0\0INFO"])
def test_a_wav_is_read_to_its_end_whatever_it_announces(announced: int, more: bytes):
    wav = bytearray(audio_file(noise(30_000)))
    wav[40:44] = announced.to_bytes(4, "little")
    n_read = len(load_audio(bytes(wav) + more, LIMITS, 0)[0])
    assert 30_000 <= n_read <= 30_000 + len(more) // 2
    proper = audio_file(noise(30_000)) + more
    assert len(load_audio(proper, LIMITS, 0)[0]) == 30_000


def vbr_mp3(samples: np.ndarray, *, with_header: bool) -> bytes:
    """As written to a pipe where `with_header` is not set: the first frame's bit rate is all that tells the length."""
    file = io.BytesIO()
    options = {"write_xing": "1" if with_header else "0"}
    with av.open(file, "w", format="mp3", options=options) as out:
        stream: Any = out.add_stream("libmp3lame", rate=RATE, layout="mono", options={"compression_level": "2"})
        stream.codec_context.flags |= 2  # AV_CODEC_FLAG_QSCALE: a variable bit rate
        stream.codec_context.global_quality = 2 * 118
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("with_header", [False, True])
@pytest.mark.parametrize("silent_seconds", [(0.0, 0.0), (0.3, 0.0), (0.0, 1.0)])
def test_an_mp3_of_variable_rate_is_read_to_its_end(with_header: bool, silent_seconds: tuple[float, float]):
    front, behind = (np.zeros(int(RATE * seconds)) for seconds in silent_seconds)
    swell = np.sin(np.arange(9 * RATE) / 30) * np.abs(np.sin(np.arange(9 * RATE) / 9_000)) * 0.4
    samples = np.concatenate([front, swell, behind])
    found = load_audio(vbr_mp3(samples, with_header=with_header), LIMITS, 0)[0]
    assert len(samples) <= len(found) < len(samples) + 3 * 1_152  # the codec's own delay and padding


@pytest.mark.parametrize(
    ("container", "codec"),
    [("ipod", "aac"), ("mp4", "aac"), ("mov", "aac"), ("adts", "aac"), ("ipod", "alac"), ("webm", "libopus"),
     ("matroska", "aac")],
)  # fmt: skip
@pytest.mark.parametrize("rate", [24_000, 48_000])
def test_what_phones_and_browsers_record_is_read_to_its_end(container: str, codec: str, rate: int):
    data = encoded(container, codec, n_samples=2 * rate, rate=rate)
    samples, found_rate = load_audio(data, LIMITS, 0)
    assert samples.shape[1] == 1
    assert 2 <= len(samples) / found_rate < 2.2
    assert np.abs(samples).max() == pytest.approx(10_000 / 32_768, rel=0.5)
    with pytest.raises(BadReference, match="lasts at most 1 s"):
        load_audio(data, ReferenceLimits(max_seconds=1), 0)


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("webm", "libopus"), ("mp3", "libmp3lame")])
def test_names_in_other_alphabets_are_no_reason_to_refuse_a_clip(container: str, codec: str):
    data = encoded(container, codec, title="Jürgen, müde")
    latin = data.replace("ü".encode(), b"\xfc\xfc")
    assert latin != data
    np.testing.assert_array_equal(load_audio(latin, LIMITS, 0)[0], load_audio(data, LIMITS, 0)[0])


@pytest.mark.parametrize("level", [0.0, 0.0009])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_a_silent_clip_is_refused(level: float, offset: float):
    hum = level * np.sin(np.arange(RATE) / 9) + offset
    with pytest.raises(BadReference, match="reference 1: the clip is silent"):
        load_audio(audio_file(hum, subtype="FLOAT"), LIMITS, 0)
    assert len(load_audio(audio_file(hum + 0.002 * np.sin(np.arange(RATE)), subtype="FLOAT"), LIMITS, 0)[0]) == RATE


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_damaged_file_is_decoded_or_refused(container):
    data = audio_file(noise(3_000), container=container)
    random = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data[: random.integers(1, len(data) + 1)])
        for at in random.integers(0, min(len(damaged), 300), 5):
            damaged[at] = random.integers(256)
        try:
            samples, _ = load_audio(bytes(damaged), LIMITS, 0)
        except BadReference:
            continue
        assert np.isfinite(samples).all()


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data):
    with pytest.raises(BadReference, match="reference 1"):
        load_audio(b"RIFF" + data, LIMITS, 0)


def pcm16_of(samples: np.ndarray) -> np.ndarray:
    return to_pcm16(torch.from_numpy(samples)).numpy()


def test_sixteen_bit_samples_survive_the_way_through_float():
    every = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(pcm16_of(every.astype(np.float32) / 32768), every)


def test_rounding_takes_the_even_neighbour_and_clips():
    halves = np.array([0.5, 1.5, -0.5, -1.5, 2.5], np.float32) / 32768
    assert pcm16_of(halves).tolist() == [0, 2, 0, -2, 2]
    assert pcm16_of(np.array([1.0, 2.0, -1.0, -7.0], np.float32)).tolist() == [32767, 32767, -32768, -32768]


@given(st.lists(st.integers(-32768, 32767), max_size=50), st.sampled_from([8_000, 24_000, 48_000]))
def test_wav_reads_back_as_written(samples, rate):
    pcm = np.array(samples, np.int16)
    data = wav_bytes(pcm, rate)
    assert len(data) == 44 + 2 * len(pcm)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        assert file.readframes(file.getnframes()) == pcm.tobytes()
    read, read_rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert read_rate == rate
    np.testing.assert_array_equal(read, pcm)


@given(st.lists(st.tuples(st.binary(max_size=20), st.booleans()), max_size=12), st.integers(1, 384_000))
def test_growing_base64_equals_that_of_the_whole_file(pieces, rate):
    if sum(len(piece) for piece, _ in pieces) % 2:
        pieces.append((b"\x01", False))
    growing = WavBase64(rate)
    whole, taken = b"", ""
    for piece, is_taken in pieces:
        growing.append(piece)
        whole += piece
        if is_taken:
            n_chars = growing.n_chars
            taken += growing.take()
            assert len(taken) % 4 == 0
            assert growing.n_chars == 0 <= n_chars
    expected = base64.b64encode(wav_bytes(np.frombuffer(whole, "<i2"), rate)).decode()
    head, rest = growing.close()
    assert head + taken + rest == expected
    assert len(head) == (60 if whole else len(expected))


def test_half_a_sample_at_the_end_is_an_error():
    growing = WavBase64(RATE)
    growing.append(b"\x00\x01\x02")
    with pytest.raises(MossError, match="even number of bytes, got 3"):
        growing.close()
