"""Encoding: a clip's codes are the server's, alone or beside others, and do not depend on what is beside it."""

from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from codec_models import golden_codec, tiny_codec
from golden_data import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.preparation import prepare_reference
from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.fuse import fuse
from sglang_moss.training.data import encoders
from sglang_moss.training.data.checkpoint import Checkpoint
from sglang_moss.training.data.encoders import SteadyRunner, serve
from sglang_moss.training.data.errors import DataError
from sglang_moss.training.data.messages import EncodedClip, EncoderSettings, EncodeTask, Failure, Ready

pytestmark = pytest.mark.wide

CLIPS = sorted((GOLDEN / "cases" / "audio").glob("*_24k.*"))
N_VQ = 16


def waveforms(frames: list[int], frame_samples: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(0, 0.3, n * frame_samples).astype(np.float32) for n in frames]


def encoded(runner: SteadyRunner, samples: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    """Codes of all clips, sent to an encoding process's loop in two lists."""
    ours, theirs = Pipe()

    def run() -> None:
        with suppress(EOFError):  # nobody is there any more
            serve(theirs, runner)

    thread = Thread(target=run)
    thread.start()
    tasks = []
    for i, waveform in enumerate(samples):
        waveform.tofile(folder / f"{i}.f32")
        tasks.append(EncodeTask(i, folder / f"{i}.f32", len(waveform) // runner.frame_samples))
    ours.send(tasks[:2])
    ours.send(tasks[2:])
    answers: list[EncodedClip] = [ours.recv() for _ in samples]
    ours.close()
    thread.join()
    assert [a.busy_s for a in answers] == sorted(a.busy_s for a in answers)
    codes = {answer.key: answer.codes for answer in answers}
    return [codes[i] for i in range(len(samples))]


@pytest.mark.parametrize(("n_slots", "whole_batches"), [(1, False), (3, False), (3, True)])
def test_clips_have_the_codes_of_one_shot(tmp_path, n_slots, whole_batches):
    codec = golden_codec("ctx10")
    samples = [prepare_reference(clip.read_bytes(), 24_000, ReferenceLimits(), 0) for clip in CLIPS]
    samples = [waveform[: len(waveform) // 1920 * 1920] for waveform in samples if len(waveform) >= 1920]
    runner = SteadyRunner(EncoderRunner(codec, N_VQ, n_slots=n_slots), whole_batches=whole_batches)
    expected = codec.encode([torch.from_numpy(waveform) for waveform in samples])
    for got, whole in zip(encoded(runner, samples, tmp_path), expected, strict=True):
        assert got.tolist() == whole[:, :N_VQ].tolist()


@settings(max_examples=30, derandomize=True)
@given(
    frames=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    n_slots=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_on_a_cpu_a_clip_beside_others_is_the_very_same_clip(tmp_path_factory, frames, n_slots, seed):
    codec, folder = tiny_codec(), tmp_path_factory.mktemp("waveforms")
    samples = waveforms(frames, codec.config.frame_samples, seed)

    def runner() -> SteadyRunner:
        return SteadyRunner(EncoderRunner(codec, 5, n_slots=n_slots, window_frames=8), whole_batches=False)

    together = encoded(runner(), samples, folder)
    for waveform, codes in zip(samples, together, strict=True):
        [alone] = encoded(runner(), [waveform], folder)
        assert np.array_equal(alone, codes)


def answers_of_main(monkeypatch: pytest.MonkeyPatch, settings: EncoderSettings, *messages: object) -> list[object]:
    """What an encoding process sends until its parent goes."""
    ours, theirs = Pipe()
    monkeypatch.setattr(encoders, "parent", lambda: theirs)
    thread = Thread(target=encoders.main)
    thread.start()
    for message in (settings, *messages):
        ours.send(message)
    answers = [ours.recv() for _ in range(1 + len(messages))]
    ours.close()
    thread.join()
    return answers


def test_a_process_loads_the_codec_and_encodes(tmp_path, monkeypatch):
    settings = EncoderSettings(Checkpoint.open(GOLDEN / "ttsd", GOLDEN / "codec").codec, N_VQ, "cpu")
    [samples] = waveforms([9], 1920)
    samples.tofile(tmp_path / "0.f32")
    ready, clip = answers_of_main(monkeypatch, settings, [EncodeTask(0, tmp_path / "0.f32", 9)])
    assert ready == Ready("CPU")
    assert isinstance(clip, EncodedClip)
    [expected] = golden_codec("ctx10").encode([torch.from_numpy(samples)])
    assert clip.codes.tolist() == expected[:, :N_VQ].tolist()


def test_a_process_that_cannot_load_the_codec_says_so(monkeypatch):
    settings = EncoderSettings(Checkpoint.open(GOLDEN / "ttsd", GOLDEN / "codec").codec, N_VQ, "nonsense")
    [answer] = answers_of_main(monkeypatch, settings)
    assert isinstance(answer, Failure)
    assert answer.sentence.startswith("the codec cannot be loaded on nonsense: ")


class RecordingRunner:
    """Codes are each frame's first sample; remembers what its steps looked like."""

    n_slots, window_frames, frame_samples = 4, 64, 2

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def encode(self, windows: list[np.ndarray], slots: list[int]) -> list[np.ndarray]:
        assert sorted(slots) == [0, 1, 2, 3]
        self.steps.append(sorted(len(window) // 2 for window in windows))
        return [window[::2, None].astype(np.int16) for window in windows]

    def reset(self, slot: int) -> None: ...


def test_on_a_gpu_every_step_has_all_slots_and_lengths_of_one_class():
    recording = RecordingRunner()
    runner = SteadyRunner(recording, whole_batches=True)  # pyright: ignore[reportArgumentType]
    windows = [np.full(2 * n, n, np.float32) for n in (64, 3, 33, 8)]
    codes = runner.encode(windows, [2, 0, 3, 1])
    assert [c[0, 0] for c in codes] == [64, 3, 33, 8]
    assert [len(c) for c in codes] == [64, 3, 33, 8]
    assert sorted(recording.steps) == [[0, 0, 3, 8], [0, 0, 33, 64]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_a_clip_beside_others_is_the_very_same_clip(tmp_path):
    codec = golden_codec("ctx10").to("cuda")
    samples = waveforms([5, 64, 70, 200, 33, 8, 1, 129, 64, 17], 1920)
    runner = SteadyRunner(EncoderRunner(codec, N_VQ, n_slots=8), whole_batches=True)
    together = encoded(runner, samples, tmp_path)
    for waveform, codes in zip(samples, together, strict=True):
        assert np.array_equal(encoded(runner, [waveform], tmp_path)[0], codes)


def test_a_codec_is_the_same_fused_or_not(tmp_path):
    fuse(GOLDEN / "ttsd", GOLDEN / "codec", tmp_path / "fused")
    published = Checkpoint.open(GOLDEN / "ttsd", GOLDEN / "codec")
    fused = Checkpoint.open(tmp_path / "fused")
    assert published.codec.digest() == fused.codec.digest()
    assert published.tokenizer_digest() == fused.tokenizer_digest()
    assert published.tokens == fused.tokens
    a, b = (one.codec.load(torch.device("cpu")).state_dict() for one in (published, fused))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(DataError, match="fused and has its codec: leave --codec-path out"):
        Checkpoint.open(tmp_path / "fused", GOLDEN / "codec")
    with pytest.raises(DataError, match="no codec of its own: name it with --codec-path"):
        Checkpoint.open(GOLDEN / "ttsd")
    with pytest.raises(ValueError, match="swap"):
        Checkpoint.open(GOLDEN / "codec", GOLDEN / "ttsd")
