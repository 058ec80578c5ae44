"""Reference clips made from a seed: sound with the time structure of speech, for when no recording is at hand.

Syllables of 120 to 280 ms: harmonics of a gliding pitch under two formants, some opened by a burst of noise, with a
pause after a few of them. Not silence, not one tone: loudness, codes and cache keys behave as those of a recording.
"""

import io

import numpy as np
import soundfile

RATE = 24_000
_N_HARMONICS = 24
_PEAK = 0.5


def synthetic_clip(seconds: float, seed: int) -> bytes:
    """A WAV file, 16-bit mono at 24 kHz, of one made-up speaker; each seed gives another speaker and another clip."""
    return wav_of(synthetic_speech(round(seconds * RATE), seed))


def wav_of(samples: np.ndarray) -> bytes:
    """A WAV file, 16-bit mono at 24 kHz, of [n_samples] samples."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def synthetic_speech(n_samples: int, seed: int) -> np.ndarray:
    """[n_samples] float32 samples, the largest of them 0.5."""
    random = np.random.default_rng(seed)
    pitch_hz = random.uniform(90.0, 240.0)
    samples = np.zeros(n_samples, np.float32)
    start = 0
    while start < n_samples:
        syllable = _syllable(random, pitch_hz)[: n_samples - start]
        samples[start : start + len(syllable)] = syllable
        is_phrase_end = random.random() < 0.15
        start += len(syllable) + int(RATE * random.uniform(0.2, 0.5) * is_phrase_end)
    return samples * (_PEAK / max(float(np.abs(samples).max()), 1e-9))


def _syllable(random: np.random.Generator, pitch_hz: float) -> np.ndarray:
    n_samples = int(RATE * random.uniform(0.12, 0.28))
    glide = np.linspace(random.uniform(0.85, 1.15), random.uniform(0.85, 1.15), n_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz * glide) / RATE
    harmonics = np.arange(1, _N_HARMONICS + 1)
    formants_hz = np.array([random.uniform(300, 800), random.uniform(900, 2_400)])
    distance = (harmonics[:, None] * pitch_hz - formants_hz) / 150
    loudness = (1 / (1 + distance**2)).sum(axis=1) + 0.02
    voiced = (loudness[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)
    noise = random.standard_normal(n_samples)
    n_burst = n_samples // 4 if random.random() < 0.4 else 0
    voiced[:n_burst] = noise[:n_burst]
    envelope = np.sin(np.pi * np.linspace(0, 1, n_samples)) ** 0.5
    return ((voiced + 0.03 * noise) * envelope).astype(np.float32)
