"""Steps from host arrays to 16-bit PCM: any batching gives each stream what it gets alone. On a GPU, by its graphs."""

import copy
import functools

import numpy as np
import pytest
import torch
from codec_models import random_codes, tiny_codec
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_interpreter import DEVICE

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.pcm import to_pcm16
from sglang_moss.codec.runner import DecoderRunner
from sglang_moss.codec.state import CodecState
from sglang_moss.codec.step_shapes import MAX_STEP_FRAMES, StepShapes

N_VQ = 3
MAX_STREAMS, MAX_FRAMES = 3, 6


@functools.cache
def codec_here() -> Codec:
    return copy.deepcopy(tiny_codec()).to(DEVICE)


def new_runner(state: CodecState | None = None) -> DecoderRunner:
    state = state or codec_here().new_state(4)
    return DecoderRunner(codec_here(), state, N_VQ, max_streams=MAX_STREAMS, max_frames=MAX_FRAMES)


def codes_of(n_frames: int, seed: int = 0) -> np.ndarray:
    return random_codes(tiny_codec(), n_frames, N_VQ, seed=seed).numpy()


def whole(codes: np.ndarray) -> np.ndarray:
    return to_pcm16(tiny_codec().decode(torch.from_numpy(codes.astype(np.int64)))).numpy()


def assert_same_sound(pcm: np.ndarray, expected: np.ndarray) -> None:
    """Up to one step of 16 bits, where float noise crosses the middle between two."""
    assert pcm.dtype == np.int16
    assert pcm.shape == expected.shape
    np.testing.assert_allclose(pcm.astype(int), expected, atol=1)


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, MAX_FRAMES)), max_size=MAX_STREAMS, unique_by=lambda p: p[0]
        ),
        min_size=1,
        max_size=8,
    ),
    dtype=st.sampled_from([np.int16, np.int32, np.int64]),
)
def test_any_schedule_gives_each_stream_its_own_sound(steps, dtype):
    """Each step names some slots, and frames for each."""
    runner = new_runner()
    codes = {slot: codes_of(MAX_FRAMES * len(steps), seed=slot).astype(dtype) for slot in range(4)}
    n_decoded, heard = dict.fromkeys(codes, 0), {slot: [np.empty(0, np.int16)] for slot in codes}
    for step in steps:
        stretches = [codes[slot][n_decoded[slot] :][:n] for slot, n in step]
        for (slot, n), pcm in zip(step, runner.decode(stretches, [slot for slot, _ in step]), strict=True):
            n_decoded[slot] += n
            heard[slot].append(pcm)
    for slot, parts in heard.items():
        assert_same_sound(np.concatenate(parts), whole(codes[slot][: n_decoded[slot]]))


def test_results_stay_when_the_next_step_runs():
    runner = new_runner()
    [first] = runner.decode([codes_of(4)], [0])
    kept = first.copy()
    runner.decode([codes_of(6, seed=1)], [1])
    assert (first == kept).all()


def test_a_stream_that_is_not_finite_is_none_and_its_neighbours_are_not():
    state = codec_here().new_state(3)
    runner = new_runner(state)
    runner.decode([codes_of(2)], [1])
    state.memory[1].fill_(torch.nan)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()  # the runner has a stream of its own
    first, broken, third = runner.decode([codes_of(5, seed=0), codes_of(5, seed=1), codes_of(6, seed=2)], [0, 1, 2])
    assert broken is None
    assert_same_sound(first, whole(codes_of(5, seed=0)))
    assert_same_sound(third, whole(codes_of(6, seed=2)))
    runner.reset(1)
    [again] = runner.decode([codes_of(5, seed=1)], [1])
    assert_same_sound(again, whole(codes_of(5, seed=1)))


def test_a_copied_slot_continues_like_its_source_and_leaves_it_alone():
    runner, voice = new_runner(), codes_of(5)
    runner.decode([voice], [3])
    runner.decode([codes_of(6, seed=7)], [0])  # what the copy covers
    for slot in (0, 1):
        runner.copy_slot(3, slot)
    for slot, seed in ((0, 1), (1, 2), (3, 3)):
        rest = codes_of(6, seed=seed)
        [pcm] = runner.decode([rest], [slot])
        assert_same_sound(pcm, whole(np.concatenate((voice, rest)))[-len(pcm) :])


def test_no_frames_are_no_sound():
    runner = new_runner()
    assert runner.decode([], []) == []
    assert [pcm.shape for pcm in runner.decode([codes_of(0), codes_of(0)], [0, 1])] == [(0,), (0,)]


def test_steps_too_large_and_slots_named_twice_are_refused():
    runner = new_runner()
    with pytest.raises(ValueError, match="takes 6 frames of a stream, got 7"):
        runner.decode([codes_of(7)], [0])
    with pytest.raises(ValueError, match="takes 3 streams, got 4"):
        runner.decode([codes_of(1)] * 4, [0, 1, 2, 3])
    for slots in ([0, 0], [0]):
        with pytest.raises(ValueError, match="2 stretches need as many different slots"):
            runner.decode([codes_of(1)] * 2, slots)


@given(max_streams=st.integers(1, 200), max_frames=st.integers(1, 700), n_frames=st.integers(1, 700))
def test_every_allowed_batch_has_a_shape_that_holds_it(max_streams, max_frames, n_frames):
    shapes = StepShapes(max_streams, max_frames)
    every = shapes.all()
    assert len(set(every)) == len(every)
    assert all(s == 1 or s * f <= MAX_STEP_FRAMES for s, f in every)
    assert [s * f for s, f in every] == sorted((s * f for s, f in every), reverse=True)
    if n_frames > max_frames:
        with pytest.raises(ValueError, match=f"{max_frames} frames of a stream"):
            shapes.largest_batch(n_frames)
        return
    largest = shapes.largest_batch(n_frames)
    assert 1 <= largest <= max_streams
    for n_streams in (1, (largest + 1) // 2, largest):
        streams, frames = shapes.smallest(n_streams, n_frames)
        assert (streams, frames) in every
        assert n_streams <= streams <= max_streams
        assert n_frames <= frames <= max_frames
        assert frames < 2 * n_frames or frames == 1
    with pytest.raises(ValueError, match="takes"):
        shapes.smallest(largest + 1, n_frames)
