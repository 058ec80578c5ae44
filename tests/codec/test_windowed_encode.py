"""Encoding in windows is encoding in one shot, for any window, batch, slot and length."""

import copy
import re

import numpy as np
import pytest
import torch
from codec_models import CONTEXTS, golden_codec, tiny_codec
from golden_data import golden_arrays, golden_json
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.encoder_runner import EncoderRunner

ENCODE = golden_arrays("codec/encode")
CASES = golden_json("codec/encode")["clips_and_cases"]
ONE_SHOT_CODES = [k for k in ENCODE if re.fullmatch(r"(?!batch)\w+\.\w+\.(one_shot|nq\d+)\.codes", k)]
TIE = 2e-5  # hidden rows differ by float32 noise of 5e-6, so codes that are so close to each other may be either


def in_windows(codec: Codec, waveforms: list[np.ndarray], window_frames: int, n_slots: int = 2) -> list[np.ndarray]:
    """Codes of each waveform: `n_slots` at a time, in slots that others have used, of all codebooks."""
    n_codebooks, frame = codec.config.n_codebooks, codec.config.frame_samples
    runner = EncoderRunner(codec, n_codebooks, n_slots=n_slots, window_frames=window_frames)
    codes = [np.empty((0, n_codebooks), np.int16) for _ in waveforms]
    for first in range(0, len(waveforms), n_slots):
        group = range(first, min(first + n_slots, len(waveforms)))
        for slot in range(n_slots):
            runner.reset(slot)
        while True:
            rest = [i for i in group if len(codes[i]) < len(waveforms[i]) // frame]
            if not rest:
                break
            windows = []
            for i in rest:
                n = min(window_frames, len(waveforms[i]) // frame - len(codes[i]))
                windows.append(waveforms[i][len(codes[i]) * frame : (len(codes[i]) + n) * frame])
            for i, part in zip(rest, runner.encode(windows, [i - first for i in rest]), strict=True):
                codes[i] = np.concatenate([codes[i], part])
    return codes


def assert_equal_but_for_ties(codec: Codec, actual: np.ndarray, waveform: np.ndarray) -> None:
    """Equal to one-shot codes, up to a frame's first codebook where two of them are equally near."""
    [expected] = codec.encode([torch.from_numpy(waveform)])
    assert actual.shape == expected.shape
    differing = np.flatnonzero((actual != expected.numpy()).any(axis=1))
    if len(differing) == 0:
        return
    residual = codec.quantizer.input_proj(
        codec.encoder_hidden(torch.from_numpy(waveform)[None, : len(actual) * codec.config.frame_samples])
    )[0]
    for frame in differing:
        left = residual[frame]
        for k, book in enumerate(codec.quantizer.quantizers):
            direction = torch.nn.functional.normalize(book.get_submodule("in_proj")(left), dim=-1)
            scores = codec.quantizer.directions[k] @ direction - codec.quantizer.offsets[k]
            code = int(expected[frame, k])
            if actual[frame, k] != code:
                assert scores[code] - scores[int(actual[frame, k])] < TIE
                break
            left = left - codec.quantizer.decoded[k * codec.config.codebook_size + code]


@pytest.mark.parametrize("window_frames", [1, 3, 8, "window - 1", "window", 64, 1000])
@pytest.mark.parametrize("case", ONE_SHOT_CODES)
def test_windows_give_the_references_codes(case, window_frames):
    clip, context, _, _ = case.split(".")
    codec = golden_codec(context)
    window = int(codec.config.frame_rate * codec.config.context_s)
    named = {"window - 1": window - 1, "window": window}
    size = max(1, named[window_frames]) if isinstance(window_frames, str) else window_frames
    n_codebooks, _ = ENCODE[case].shape
    n_valid = CASES[case.removesuffix(".codes")]["valid_frames"]
    waveform = ENCODE[f"{clip}.pcm"].astype(np.float32) / 32768
    [codes] = in_windows(codec, [waveform], size)
    assert codes[:, :n_codebooks].tolist() == ENCODE[case][:, :n_valid].T.tolist()


@pytest.mark.parametrize("window_frames", [5, 64])
def test_a_batch_of_different_lengths_gives_the_references_codes(window_frames):
    clips = CASES["batch.ctx10"]["clips"]
    waveforms = [ENCODE[f"{clip}.pcm"].astype(np.float32) / 32768 for clip in clips]
    codes = in_windows(golden_codec("ctx10"), waveforms, window_frames, n_slots=len(clips))
    for i, n_frames in enumerate(ENCODE["batch.ctx10.lengths"]):
        assert codes[i].tolist() == ENCODE["batch.ctx10.codes"][:, i, :n_frames].T.tolist()


@settings(max_examples=80, derandomize=True)
@given(
    lengths=st.lists(st.integers(0, 600), min_size=1, max_size=5),  # samples; a frame has 12
    window_frames=st.integers(1, 12),
    n_slots=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_any_windows_and_batches_equal_one_shot(lengths, window_frames, n_slots, seed):
    generator = np.random.default_rng(seed)
    waveforms = [generator.normal(0, 0.3, n).astype(np.float32) for n in lengths]
    codes = in_windows(tiny_codec(), waveforms, window_frames, n_slots)
    for actual, waveform in zip(codes, waveforms, strict=True):
        assert_equal_but_for_ties(tiny_codec(), actual, waveform)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("seconds", [0.08, 5.2, 60.123, 300.0])
def test_long_clips_equal_one_shot(context, seconds):
    codec = golden_codec(context)
    generator = np.random.default_rng(round(seconds))
    envelope = np.repeat(generator.uniform(0, 0.4, round(seconds * 10) + 1), codec.config.sampling_rate // 10)
    waveform = (envelope * generator.normal(size=len(envelope)))[: round(seconds * codec.config.sampling_rate)]
    waveform = waveform.astype(np.float32)
    [codes] = in_windows(codec, [waveform], 64)
    assert_equal_but_for_ties(codec, codes, waveform)


def test_a_clip_in_a_used_slot_hears_nothing_of_the_one_before():
    codec, generator = tiny_codec(), np.random.default_rng(0)
    first, second = (generator.normal(0, 0.3, 12 * 8).astype(np.float32) for _ in range(2))
    runner = EncoderRunner(codec, 5, n_slots=2, window_frames=8)
    runner.encode([first], [1])
    runner.reset(1)
    [codes] = runner.encode([second], [1])
    assert_equal_but_for_ties(codec, codes, second)


def test_memory_does_not_depend_on_the_clips(monkeypatch):
    codec = tiny_codec()
    runner = EncoderRunner(codec, 3, n_slots=2, window_frames=8)
    steps = []
    step = runner._step
    monkeypatch.setattr(runner, "_step", lambda shape: steps.append(shape) or step(shape))
    waveform = np.random.default_rng(0).normal(0, 0.3, 12 * 500).astype(np.float32)
    for start in range(0, len(waveform), 12 * 8):
        runner.encode([waveform[start : start + 12 * 8]], [0])
    assert set(steps) == {(1, 8), (1, 4)}


def test_a_step_runs_before_the_weights_come_and_reads_no_value_on_the_host():
    codec = copy.deepcopy(tiny_codec())
    codec._tables_filled = False
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.fill_(torch.nan)
        codec.quantizer.decoded.fill_(torch.nan)
    runner = EncoderRunner(codec, 3, n_slots=2, window_frames=8)
    [codes] = runner.encode([np.zeros(12 * 8, np.float32)], [0])
    assert ((codes >= 0) & (codes < codec.config.codebook_size)).all()
    meta = copy.deepcopy(tiny_codec()).to("meta")
    index = torch.zeros(3, dtype=torch.int64, device="meta")
    samples = torch.zeros(3, 48, device="meta")
    assert meta.encode_step(meta.new_encoder_state(2), samples, index, index, 2).shape == (3, 4, 2)


def test_windows_of_the_wrong_kind_are_refused():
    runner = EncoderRunner(tiny_codec(), 3, n_slots=2, window_frames=8)
    frame = np.zeros(12, np.float32)
    for windows, slots in (([frame[:11]], [0]), ([frame, frame], [1, 1])):
        with pytest.raises(ValueError, match="whole frames for different slots"):
            runner.encode(windows, slots)
    with pytest.raises(ValueError, match="takes 8 frames"):
        runner.encode([np.zeros(12 * 9, np.float32)], [0])
