"""How exactly times of turns are estimated: on dialogues of synthetic speech whose borders are known.

    python -m sglang_moss.benchmarks.timestamps --sentences FILE --out results/timestamps_cpu.jsonl

Flite speaks every sentence in one of three voices (Debian's package `flite`), each speaker of a dialogue at a tempo of
its own. Silence at a sentence's ends is cut off; then sentences are joined to turns and turns to dialogues, with pauses
of the same lengths inside of a turn as between two: a pause alone does not tell. The estimate is compared with two by
the text's share alone: of the whole speech, and of what is between its first and its last sound.

A sentence's true ends are where its level leaves the noise that Flite puts around it, not where a phonetician would
have them: a few hundredths of a second of an error say nothing; whether the right pause was found does.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer

from sglang_moss.request.turns import Turn
from sglang_moss.turn_times.timing import by_length, expected_turns, turn_times

from .runs.record import record

VOICES = ("rms", "slt", "awb")
TEMPI = (0.85, 1.0, 1.2)  # Flite's `duration_stretch`
SHORT = ("Yes.", "No.", "Really?", "I know.", "Not yet.", "Of course.", "Why not?", "That is true.", "Go on, please.")
_RATE = 16_000
_HOP = _RATE // 100
_BELOW_SPEECH_DB = 38.0  # what is softer than this below the loud parts is no sound of a sentence
_LEVEL = 0.1  # rms of speech


@dataclass(frozen=True)
class Kind:
    """Of dialogues."""

    name: str
    pauses_s: tuple[float, float]
    n_turns: tuple[int, int] = (2, 8)
    n_speakers: tuple[int, int] = (2, 3)
    inside_s: tuple[float, float] | None = None  # pauses inside of a turn; as between two
    noise_dbfs: float = -60.0  # rms of white noise behind all of it; speech has -20


KINDS = (
    Kind("pauses 0.15 to 0.5 s", (0.15, 0.5)),
    Kind("pauses 0.15 to 0.5 s, shorter ones inside", (0.15, 0.5), inside_s=(0.1, 0.3)),
    Kind("hardly a pause, 0 to 0.15 s", (0.0, 0.15)),
    Kind("in noise, 20 dB below the speech", (0.15, 0.5), noise_dbfs=-40.0),
    Kind("one speaker", (0.15, 0.5), n_speakers=(1, 1)),
    Kind("long, 30 to 40 turns", (0.15, 0.5), n_turns=(30, 40)),
)


@dataclass(frozen=True)
class Dialogue:
    """A speech whose times are known."""

    turns: list[Turn]
    pcm: np.ndarray  # [L] int16 at 16 kHz
    times: np.ndarray  # [K, 2] seconds


@cache
def sentence(voice: str, stretch: float, text: str) -> np.ndarray:
    """[L] float32 of one sentence, silence at its ends cut off."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", text, "-o", file.name]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = soundfile.read(file.name, dtype="float32")
    assert rate == _RATE, rate
    samples = samples[: len(samples) // _HOP * _HOP]
    levels = 10 * np.log10(np.mean(samples.reshape(-1, _HOP) ** 2, axis=1) + 1e-12)
    sound = np.flatnonzero(levels > np.percentile(levels, 95) - _BELOW_SPEECH_DB)
    samples = samples[sound[0] * _HOP : (sound[-1] + 1) * _HOP]
    return samples * (_LEVEL / np.sqrt(np.mean(samples**2)))


def make(kind: Kind, sentences: Sequence[str], seed: int) -> Dialogue:
    """One dialogue of a kind; each seed gives another, always the same."""
    rng = np.random.default_rng(seed)
    n_speakers = int(rng.integers(kind.n_speakers[0], kind.n_speakers[1] + 1))
    n_turns = int(rng.integers(max(kind.n_turns[0], n_speakers), kind.n_turns[1] + 1))
    voices = rng.permutation(VOICES)[:n_speakers]
    tempi = rng.choice(TEMPI, n_speakers)
    turns, pieces, times, speaker = [], [np.zeros(int(rng.uniform(0, 0.3) * _RATE), np.float32)], [], -1
    for k in range(n_turns):
        others = [s for s in range(n_speakers) if s != speaker] or [0]
        speaker = k if k < n_speakers else int(rng.choice(others))
        words = list(rng.choice(sentences, int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])), replace=False))
        if rng.random() < 0.25:
            words = [str(rng.choice(SHORT)), *words[: int(rng.integers(0, 2))]]
        begin = sum(map(len, pieces))
        for i, text in enumerate(words):
            if i:
                pieces.append(_pause(rng, kind.inside_s or kind.pauses_s))
            pieces.append(sentence(str(voices[speaker]), float(tempi[speaker]), text))
        times.append((begin / _RATE, sum(map(len, pieces)) / _RATE))
        turns.append(Turn(speaker + 1, " ".join(words)))
        pieces.append(_pause(rng, kind.pauses_s))
    samples = np.concatenate(pieces)
    samples = samples + rng.standard_normal(len(samples)).astype(np.float32) * 10 ** (kind.noise_dbfs / 20)
    return Dialogue(turns, np.clip(np.rint(samples * 32_767), -32_768, 32_767).astype(np.int16), np.array(times))


def _pause(rng: np.random.Generator, bounds: tuple[float, float]) -> np.ndarray:
    return np.zeros(int(rng.uniform(*bounds) * _RATE), np.float32)


def by_share(dialogue: Dialogue, *, trimmed: bool) -> np.ndarray:
    """[K, 2] times by the text's share alone."""
    begin, end = (dialogue.times[0, 0], dialogue.times[-1, 1]) if trimmed else (0.0, len(dialogue.pcm) / _RATE)
    return by_length(expected_turns(dialogue.turns), begin, end)


def errors_of(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[2 * (K - 1)] seconds that ends and beginnings at the borders are off."""
    return np.abs(np.concatenate([estimate[:-1, 1] - truth[:-1, 1], estimate[1:, 0] - truth[1:, 0]]))


def measure(kind: Kind, sentences: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """One line."""
    with ThreadPoolExecutor(2) as pool:
        dialogues = list(pool.map(lambda i: make(kind, sentences, seed + i), range(n)))
    begun = time.process_time()
    estimates = [turn_times(dialogue.pcm, _RATE, dialogue.turns) for dialogue in dialogues]
    cpu_s = time.process_time() - begun
    audio_s = sum(len(dialogue.pcm) for dialogue in dialogues) / _RATE
    line: dict[str, Any] = {"kind": kind.name, "seed": seed, "dialogues": n}
    line |= {"borders": sum(len(d.turns) - 1 for d in dialogues), "audio_seconds": round(audio_s, 1)}
    line["cpu_ms_per_audio_second"] = round(1000 * cpu_s / audio_s, 2)
    answers = {
        "estimate": estimates,
        "share": [by_share(d, trimmed=False) for d in dialogues],
        "share_of_sound": [by_share(d, trimmed=True) for d in dialogues],
    }
    for name, found in answers.items():
        off = np.concatenate([errors_of(times, d.times) for times, d in zip(found, dialogues, strict=True)])
        line[name] = figures(off)
    return line


def figures(off: np.ndarray) -> dict[str, float]:
    """Of [N] seconds that borders are off: the median, what nine of ten are within, and the share within 0.1 s."""
    return {
        "median_s": round(float(np.median(off)), 3),
        "p90_s": round(float(np.percentile(off, 90)), 3),
        "within_0.1_s": round(float(np.mean(off <= 0.1)), 3),
    }


def main(
    sentences: Annotated[Path, typer.Option(help="Sentences in ASCII, one a line.")],
    n: Annotated[int, typer.Option(help="Dialogues of each kind.")] = 150,
    seed: Annotated[int, typer.Option()] = 0,
    out: Annotated[Path, typer.Option()] = Path("timestamps.jsonl"),
) -> None:
    """Measure, and append a line for each kind of dialogue."""
    lines = sentences.read_text("ascii").split("\n")
    texts = [line.strip() for line in lines if line.strip()]

    def measured() -> Iterator[dict[str, Any]]:
        for kind in KINDS:
            yield measure(kind, texts, n if kind.n_turns[1] < 30 else max(10, n // 10), seed)

    record(out, measured())


if __name__ == "__main__":
    typer.run(main)
