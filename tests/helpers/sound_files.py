"""Audio files made, read, and held to each other."""

import io

import av
import numpy as np
import soundfile

RATE = 24_000


def tone_file(seconds: float, rate: int = RATE, audio_format: str = "WAV") -> bytes:
    """A file of 220 Hz."""
    t = np.arange(int(seconds * rate)) / rate
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(2 * np.pi * 220 * t), rate, format=audio_format)
    return file.getvalue()


def decoded(audio_format: str, data: bytes, rate: int = RATE) -> np.ndarray:
    """[L] int16 of a file, at `rate`."""
    if audio_format == "pcm":
        return np.frombuffer(data, "<i2")
    with av.open(io.BytesIO(data)) as container:
        [stream] = container.streams
        resampler = av.AudioResampler("s16", "mono", rate)
        frames = [f for frame in container.decode(stream) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def best_match(heard: np.ndarray, said: np.ndarray, max_lag: int = 4000) -> float:
    """Largest correlation over delays; lossy codecs put silence in front."""
    a, b = heard.astype(float), said.astype(float)
    found = np.correlate(np.pad(a, (0, max(0, len(b) + max_lag - len(a))))[: len(b) + max_lag], b, "valid")
    return float(found.max() / (np.linalg.norm(a) * np.linalg.norm(b)))


def assert_same_samples(heard: np.ndarray, expected: np.ndarray) -> None:
    """As many int16, each at most one step off: the codec rounds differently with the frames it decodes together."""
    assert heard.shape == expected.shape
    assert np.abs(heard.astype(int) - expected).max() <= 1
