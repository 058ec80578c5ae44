"""The demo: its check of the audio, and the whole of it."""

import subprocess
import sys
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile
from judged_speech import WORDS, joined, write_speech

from sglang_moss.clients import demo
from sglang_moss.clients.demo import DemoFailed, check_sound
from sglang_moss.clients.start_log import part_of_start

RATE = 24_000
TONE = 0.1 * np.sin(np.arange(2 * RATE) / 10)


def wav(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, RATE)
    return path


def test_sound_of_the_right_length_passes(tmp_path: Path):
    check_sound(wav(tmp_path / "a.wav", TONE), seconds=2.0)


@pytest.mark.parametrize(
    ("samples", "seconds", "problem"),
    [
        (TONE, 2.08, r"lasts 2\.000 s, expected 2\.080 s"),
        (TONE[:1], 2.0, r"lasts 0\.000 s"),
        (np.zeros(2 * RATE), 2.0, "silent from 0 s"),
        (np.concatenate([TONE[:RATE], np.zeros(RATE)]), 2.0, "silent from 1 s"),
    ],
)
def test_silence_and_wrong_lengths_fail(tmp_path: Path, samples: np.ndarray, seconds: float, problem: str):
    with pytest.raises(DemoFailed, match=problem):
        check_sound(wav(tmp_path / "a.wav", samples), seconds)


def test_speech_that_ends_by_itself_may_end_in_silence_and_be_silent_nowhere_else(tmp_path: Path):
    check_sound(wav(tmp_path / "a.wav", np.concatenate([TONE, np.zeros(RATE // 2)])), seconds=None)
    for samples in (np.zeros(2 * RATE), TONE[: RATE // 2]):
        with pytest.raises(DemoFailed):
            check_sound(wav(tmp_path / "a.wav", samples), seconds=None)


@pytest.mark.wide
def test_what_was_heard_stands_beside_what_was_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(demo, "SCRIPT", f"[S1] {WORDS['rms_question']} [S2] {WORDS['slt_answer']}")
    told = demo._heard(write_speech(tmp_path, "a", joined(["rms_question", "slt_answer"]))).splitlines()
    assert told[0] == f"said:  {WORDS['rms_question']} {WORDS['slt_answer']}"
    assert "sleep well last night" in told[1]
    assert told[2].endswith("of 17 words wrong, as pocketsphinx hears them")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    assert "nobody listened; the recogniser pocketsphinx needs" in demo._heard(tmp_path / "a.wav")


@pytest.mark.slow
@pytest.mark.server
def test_the_demo_ends_with_the_asked_length_of_sound_and_tells_what_it_waits_for(tmp_path: Path):
    out = tmp_path / "demo.wav"
    command = [sys.executable, "-m", "sglang_moss.clients.demo", "--output", str(out), "--seconds", "2.4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2.40 s of audio, 30 frames, in " in done.stdout
    check_sound(out, 2.4)

    # SGLang still prints the lines that tell the parts of a start, in this order.
    log = out.with_suffix(".server.log").read_text().splitlines(keepends=True)
    parts = [part for part, _ in groupby(map(part_of_start, accumulate(log)))]
    assert parts == [
        "importing SGLang",
        "importing SGLang again, for the process of the model",
        "loading the weights",
        "allocating memory",
        "speaking a warm-up request",
        "opening the port",
        "listening",
    ]
    assert "  0 s  importing SGLang\n" in done.stdout
    assert "s  importing SGLang again, for the process of the model\n" in done.stdout
    assert f"listen to {out}" in done.stdout
