"""Back ends by name: what they need, what they answer, and that loading is real where weights are not at hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from judged_speech import RATE, clip

from sglang_moss.evaluation import aligners, embedders, recognisers
from sglang_moss.evaluation.embedders.resemblyzer import Resemblyzer, at_one_level, window_begins
from sglang_moss.evaluation.errors import CannotJudge, MissingPackage
from sglang_moss.evaluation.recognisers.pocketsphinx import pieces
from sglang_moss.evaluation.run import Choice

pytestmark = pytest.mark.wide

GOLDEN = Path(__file__).with_name("resemblyzer_embedding.json")


def voice_like() -> np.ndarray:
    """3.3 s of 24 harmonics of a pitch that rises and falls, [L] float32: what `GOLDEN` is the embedding of.

    Made by Resemblyzer 0.1.4 with librosa 0.11: `VoiceEncoder("cpu").embed_utterance(voice_like())`, 6 digits.
    """
    t = np.arange(int(3.3 * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 15 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 25))
    return (0.05 * harmonics * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


@pytest.fixture(scope="module")
def resemblyzer() -> Resemblyzer:
    return Resemblyzer(None, "cpu")


def test_a_device_that_is_none_is_refused_before_a_back_end_is_loaded():
    with pytest.raises(CannotJudge, match="--device: expected cpu, cuda or one GPU such as cuda:1, got 'foo'"):
        Choice(recogniser="none such", device="foo").load()


def test_resemblyzer_is_that_of_its_package(resemblyzer):
    expected = np.array(json.loads(GOLDEN.read_text()), np.float32)
    # The mel filters are made in float32 here and in float64 there.
    np.testing.assert_allclose(resemblyzer.embed_speech(voice_like()), expected, atol=2e-4)


def test_an_embedding_has_length_one_and_hears_no_loudness_and_no_pauses(resemblyzer):
    speech = clip("rms_reference")
    embedding = resemblyzer.embed(speech)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    middle = len(speech) // 2
    apart = np.concatenate([speech, np.zeros(3 * RATE, np.float32), speech[:middle]])
    assert embedding @ resemblyzer.embed(apart) > 0.97
    assert embedding @ resemblyzer.embed(speech * np.float32(0.01)) > 0.99
    assert resemblyzer.embed(speech[: RATE // 2]).shape == (256,)


@pytest.mark.parametrize(
    ("seconds", "begins"), [(0.1, [0]), (1.6, [0]), (1.96, [0]), (2.0, [0, 77]), (3.3, [0, 77, 154])]
)
def test_windows_cover_the_speech(seconds, begins):
    assert window_begins(round(seconds * RATE)) == begins


@pytest.mark.parametrize("value", [0.001, 0.5])
def test_all_speech_is_brought_to_one_level(value):
    assert np.sqrt(np.mean(at_one_level(np.full(100, value, np.float32)) ** 2)) == pytest.approx(10**-1.5, rel=1e-4)


@pytest.mark.parametrize("seconds", [0.01, 19.9, 20.1, 65.0])
def test_long_speech_is_cut_without_a_gap(seconds):
    samples = np.resize(clip("rms_question"), round(seconds * RATE))
    cut = pieces(samples)
    assert [begin for begin, _ in cut] == [0, *(end for _, end in cut[:-1])]
    assert cut[-1][1] == len(samples)
    assert all(end - begin <= 20 * RATE + 1 for begin, end in cut)
    assert len(cut) == 1 or all(end - begin >= 1.5 * RATE - 1 for begin, end in cut)
    assert len(pieces(np.ones(round(seconds * RATE), np.float32))) == max(1, -(-seconds // 20))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: recognisers.load_recogniser("ear", None, "cpu"), "no recogniser 'ear'; known are pocketsphinx, f"),
        (lambda: embedders.load_embedder("nose", None, "cpu"), "no embedder 'nose'; known are resemblyzer, wavlm"),
        (lambda: aligners.load_aligner("ruler", "cpu"), "no aligner 'ruler'; known are words, proportional, mms"),
        (lambda: recognisers.load_recogniser("pocketsphinx", "x", "cpu"), "leave --recogniser-model out"),
        (lambda: embedders.load_embedder("wespeaker", None, "cpu"), r"--embedder-model FILE\.onnx"),
        (lambda: embedders.load_embedder("wespeaker", "/none.onnx", "cpu"), "cannot load '/none.onnx'"),
        (lambda: embedders.load_embedder("resemblyzer", "/none.pt", "cpu"), "no weights of Resemblyzer"),
    ],
)
def test_what_cannot_be_had_is_told(load, message):
    with pytest.raises(CannotJudge, match=message):
        load()


@pytest.mark.parametrize(
    ("package", "load", "command"),
    [
        ("pocketsphinx", lambda: recognisers.load_recogniser("pocketsphinx", None, "cpu"), r"sglang-moss\[eval\]"),
        (
            "faster_whisper",
            lambda: recognisers.load_recogniser("faster-whisper", None, "cpu"),
            r"sglang-moss\[whisper\]",
        ),
        ("onnxruntime", lambda: embedders.load_embedder("wespeaker", "x.onnx", "cpu"), "onnxruntime"),
    ],
)
def test_a_missing_package_is_told_with_the_command_that_brings_it(monkeypatch, package, load, command):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=f"{package}, which is not installed: pip install .*{command}"):
        load()


def test_a_missing_wheel_of_weights_is_told_too(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def gone(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("sglang_moss.evaluation.embedders.resemblyzer.distribution", gone)
    with pytest.raises(MissingPackage, match="pip install --no-deps resemblyzer"):
        embedders.load_embedder("resemblyzer", None, "cpu")
