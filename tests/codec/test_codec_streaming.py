"""Decoding in steps is decoding in one shot, for any schedule, batch and slot."""

import copy

import pytest
import torch
from codec_models import golden_codec, random_codes, tiny_codec
from golden_data import golden_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sglang_moss.codec import attention
from sglang_moss.codec.attention import attend, plan_blocks
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import TransformerShape
from sglang_moss.codec.ring import RingKV, SlotBatch, plan_access
from sglang_moss.codec.rotary import rotate, rotation
from sglang_moss.codec.state import CodecState
from sglang_moss.codec.transformer import TransformerStage

DECODE = golden_arrays("codec/decode")
TOLERANCE = {"atol": 1e-5, "rtol": 0}  # float32 noise: matrix products of other shapes add up in another order
LONG_FRAMES = 9  # the tiny codec's slowest window is 3 frames


def step_one(codec: Codec, state: CodecState, codes: Tensor, slot: int = 0) -> Tensor:
    """Decode codes [T, n] as the next frames of one slot."""
    return codec.decode_step(state, codes[None], torch.tensor([len(codes)]), torch.tensor([slot]))[0]


def decode_in_chunks(codec: Codec, codes: Tensor, chunk_frames: int) -> Tensor:
    state = codec.new_state(2)
    return torch.cat([step_one(codec, state, chunk, slot=1) for chunk in codes.split(chunk_frames)])


def state_tensors(state: CodecState) -> list[Tensor]:
    return [state.frames_seen, state.memory]


@pytest.mark.parametrize(
    ("context", "case", "part"), [("short", "enc", "one_shot.wav"), ("ctx10", "long", "one_shot.after8s.wav")]
)
@pytest.mark.parametrize("chunk_frames", [1, 2, 3, 7, "window - 1", "window", "window + 1", "all"])
def test_streaming_decode_equals_the_references_one_shot(context, case, part, chunk_frames):
    codec = golden_codec(context)
    codes = torch.from_numpy(DECODE[f"{case}.codes"].T.copy())
    window = int(codec.config.frame_rate * codec.config.context_s)
    named = {"window - 1": window - 1, "window": window, "window + 1": window + 1, "all": len(codes)}
    waveform = decode_in_chunks(codec, codes, named.get(chunk_frames) or chunk_frames)
    golden = torch.from_numpy(DECODE[f"{case}.{context}.{part}"])
    assert len(codes) > window
    torch.testing.assert_close(waveform[-len(golden) :], golden, **TOLERANCE)
    torch.testing.assert_close(waveform, codec.decode(codes), **TOLERANCE)


@settings(max_examples=60)
@given(
    steps=st.lists(st.lists(st.integers(-1, LONG_FRAMES), min_size=4, max_size=4), min_size=1, max_size=8),
    n_codebooks=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_any_ragged_schedule_equals_each_stream_alone(steps, n_codebooks, seed):
    """One number a slot and step: frames to decode, or -1 to stay out of the batch and, if it has ended, start anew."""
    codec, n_slots = tiny_codec(), 4
    generator = torch.Generator().manual_seed(seed)
    state = codec.new_state(n_slots)
    streams: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(n_slots)]  # of each slot, (codes, samples) a step

    def check(slot: int) -> None:
        if streams[slot]:
            codes, samples = (torch.cat(parts) for parts in zip(*streams[slot], strict=True))
            torch.testing.assert_close(samples, codec.decode(codes), **TOLERANCE)

    for step in steps:
        for slot in (s for s, n in enumerate(step) if n < 0):
            check(slot)
            streams[slot].clear()
            state.reset(slot)
        order = [s for s in torch.randperm(n_slots, generator=generator).tolist() if step[s] >= 0]
        slots = torch.tensor([*order, state.scratch_slot])
        n_frames = torch.tensor([*(step[s] for s in order), 0])
        shape = (len(slots), max(1, int(n_frames.max())), n_codebooks)
        codes = torch.randint(codec.config.codebook_size, shape, generator=generator)
        padding = torch.arange(shape[1]) >= n_frames[:, None]
        codes[padding] = torch.randint(-9, 99, codes[padding].shape, generator=generator)  # padding may hold anything
        samples = codec.decode_step(state, codes, n_frames, slots).unflatten(1, (shape[1], -1))
        assert not samples[padding].any()
        for entry, slot in enumerate(order):
            streams[slot].append((codes[entry, : step[slot]], samples[entry, : step[slot]].flatten()))
    for slot in range(n_slots):
        check(slot)


def test_a_reset_slot_equals_a_fresh_one_whatever_it_held():
    codec = tiny_codec()
    codes = random_codes(codec, LONG_FRAMES, 5)
    expected = step_one(codec, codec.new_state(3), codes, slot=1)
    state = codec.new_state(3)
    for tensor in state_tensors(state)[1:]:
        tensor.fill_(torch.nan)
    state.frames_seen.fill_(1000)
    state.reset(1)
    assert torch.equal(step_one(codec, state, codes, slot=1), expected)
    assert state.frames_seen.tolist() == [1000, LONG_FRAMES, 1000, 1000]


def test_a_copied_slot_continues_like_its_source():
    codec = tiny_codec()
    state, codes = codec.new_state(3), random_codes(codec, 2 * LONG_FRAMES, 5)
    step_one(codec, state, random_codes(codec, LONG_FRAMES, 5, seed=1), slot=1)
    step_one(codec, state, codes[:LONG_FRAMES], slot=2)
    before = state.memory[2].clone()
    state.copy_slot(2, 1)
    for slot in (1, 2):
        assert torch.equal(state.memory[slot], before)
        rest = step_one(codec, state, codes[LONG_FRAMES:], slot)
        torch.testing.assert_close(rest, codec.decode(codes)[-len(rest) :], **TOLERANCE)
    assert state.frames_seen.tolist() == [0, 2 * LONG_FRAMES, 2 * LONG_FRAMES, 0]


def test_slots_not_taking_part_stay_bit_identical():
    codec = tiny_codec()
    state = codec.new_state(5)
    codec.decode_step(state, random_codes(codec, 5, 4, 5), torch.full((5,), 4), torch.arange(5))
    before = [t.clone() for t in state_tensors(state)]
    # Slot 3 is named by an entry without frames, slot 1 too although another entry decodes into it.
    slots, n_frames = torch.tensor([1, 3, 1, state.scratch_slot]), torch.tensor([2, 0, 0, 3])
    samples = codec.decode_step(state, random_codes(codec, 4, LONG_FRAMES, 5, seed=1), n_frames, slots)
    after = state_tensors(state)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[[0, 2, 3, 4]], new[[0, 2, 3, 4]])
    assert state.frames_seen[1] == 6
    assert samples[1:3].count_nonzero() == 0


@given(
    n_seen=st.integers(0, 40), n_frames=st.integers(0, 9), window=st.integers(1, 12), rows_per_frame=st.integers(1, 4)
)
def test_a_step_writes_its_last_rows_once_each_and_nothing_else(n_seen, n_frames, window, rows_per_frame):
    """Of two writes to one place a GPU may keep either, so no place but the scratch slot's may come twice."""
    batch = SlotBatch(torch.tensor([1]), torch.tensor([n_seen]), torch.tensor([n_frames]), scratch_slot=2)
    access = plan_access(batch, 9, rows_per_frame, window)
    places = (access.write_slots * window + access.write_columns)[0].tolist()
    last_rows = range(n_seen * rows_per_frame, (n_seen + n_frames) * rows_per_frame)[-window:]
    assert [p for p in places if p < 2 * window] == [window + row % window for row in last_rows]
    assert all(2 * window <= p < 3 * window for p in places if p >= 2 * window)


def test_a_step_writes_in_place_and_reads_no_value_on_the_host():
    codec = tiny_codec()
    state = codec.new_state(2)
    places = [t.data_ptr() for t in state_tensors(state)]
    step_one(codec, state, random_codes(codec, 3, 5))
    assert [t.data_ptr() for t in state_tensors(state)] == places
    codec = copy.deepcopy(codec).to("meta")  # tensors without values: a step that looked at one would raise
    index = torch.zeros(3, dtype=torch.int64, device="meta")
    samples = codec.decode_step(codec.new_state(2), index[:, None, None].expand(3, 4, 5), index, index)
    assert samples.shape == (3, 48)


def test_state_is_usable_inside_and_outside_inference_mode():
    codec = tiny_codec()
    with torch.inference_mode():
        state = codec.new_state(1)
        step_one(codec, state, random_codes(codec, 2, 5))
    state.reset(0)
    torch.testing.assert_close(
        step_one(codec, state, random_codes(codec, 2, 5)), codec.decode(random_codes(codec, 2, 5)), **TOLERANCE
    )


def test_bytes_per_slot_is_what_a_slot_adds():
    codec = tiny_codec()
    sizes = [sum(t.nbytes for t in state_tensors(codec.new_state(n))) for n in (1, 2)]
    assert codec.slot_bytes(codec.serving_dtype) == sizes[1] - sizes[0]
    assert codec.new_state(3).n_slots == 3
    with pytest.raises(ValueError, match="0 slots was asked for"):
        codec.new_state(0)


def test_codes_of_any_integer_type_and_layout_decode_alike():
    codec = tiny_codec()
    codes = random_codes(codec, 2, LONG_FRAMES, 5)
    n_frames, slots = torch.tensor([7, 9]), torch.tensor([1, 0])
    expected = codec.decode_step(codec.new_state(2), codes, n_frames, slots)
    own_layout = codes.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for other in (codes.short(), codes.int(), own_layout):
        assert torch.equal(codec.decode_step(codec.new_state(2), other, n_frames.int(), slots.int()), expected)
    with pytest.raises(ValueError, match=r"expected integers \[B, T, n\]"):
        codec.decode_step(codec.new_state(2), codes[0], n_frames, slots)


def test_empty_steps_change_nothing():
    codec = tiny_codec()
    state = codec.new_state(2)
    none = torch.zeros(0, dtype=torch.int64)
    assert codec.decode_step(state, torch.zeros(0, 3, 5, dtype=torch.int64), none, none).shape == (0, 36)
    assert step_one(codec, state, torch.zeros(0, 5, dtype=torch.int64)).shape == (0,)
    assert state.frames_seen.tolist() == [0, 0, 0]


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("n_first", [-1, 0, 1])
@pytest.mark.parametrize("n_second", [-1, 0, 1])
def test_a_stage_is_exact_at_the_edges_of_its_window(window, n_first, n_second):
    torch.manual_seed(0)
    shape = TransformerShape(6, 6, 8, 2, 2, 16, 10000.0, 0.5, window, rows_per_frame=1)
    stage = TransformerStage(shape).requires_grad_(False)
    sizes = [window + n_first, window + n_second, 1]
    x = torch.randn(1, sum(sizes), 6)
    rings = [RingKV(torch.zeros(2, window, 2, 4), torch.zeros(2, window, 2, 4)) for _ in range(2)]
    outputs, n_seen = [], torch.zeros(1, dtype=torch.int64)
    for rows in (r for r in x.split(sizes, dim=1) if r.shape[1]):
        n_rows = torch.tensor([rows.shape[1]])
        outputs.append(stage(rows, SlotBatch(torch.tensor([0]), n_seen, n_rows, scratch_slot=1), rings))
        n_seen = n_seen + n_rows
    torch.testing.assert_close(torch.cat(outputs, dim=1), stage(x), **TOLERANCE)


@pytest.mark.parametrize("block_rows", [1, 3, 64])
@pytest.mark.parametrize("window", [1, 2, 7, 40])
@pytest.mark.parametrize("n_missing", [None, 0, 2, "all"])
def test_attention_in_blocks_equals_the_full_matrix(monkeypatch, block_rows, window, n_missing):
    monkeypatch.setattr(attention, "MAX_BLOCK_ROWS", block_rows)
    torch.manual_seed(0)
    n_rows, n_history = 11, 0 if n_missing is None else window - 1
    n_missing = n_history if n_missing == "all" else min(n_missing or 0, n_history)
    q, k, v = (
        torch.randn(2, n_rows, 3, 4),
        torch.randn(2, n_history + n_rows, 3, 4),
        torch.randn(2, n_history + n_rows, 3, 4),
    )
    missing = torch.tensor([n_missing, 0])
    blocks = plan_blocks(n_rows, window, device=q.device, dtype=q.dtype, n_history=n_history, n_missing=missing)

    query, key = torch.arange(n_history, n_history + n_rows)[:, None], torch.arange(n_history + n_rows)
    visible = (key <= query) & (query - key < window) & (key >= missing[:, None, None])
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2  # sqrt of head_dim
    weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(-1)
    torch.testing.assert_close(attend(q, k, v, blocks), torch.einsum("bhij,bjhd->bihd", weights, v), **TOLERANCE)


@pytest.mark.parametrize("n_history", [0, 99])
def test_attention_masks_do_not_grow_with_length(n_history):
    def mask_elements(n_rows: int) -> int:
        missing = torch.zeros(3, dtype=torch.int64, device="meta")
        blocks = plan_blocks(
            n_rows, 100, device=missing.device, dtype=torch.float32, n_history=n_history, n_missing=missing
        )
        assert sum(b.queries.stop - b.queries.start for b in blocks) == n_rows
        return sum(mask.numel() for mask in {id(b.mask): b.mask for b in blocks}.values())

    assert mask_elements(20 * attention.MAX_BLOCK_ROWS) == mask_elements(10 * attention.MAX_BLOCK_ROWS)


def test_rotation_keeps_its_precision_late_in_an_hour():
    x, y = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))
    products = []
    for start in (0, 360_000):
        at = torch.tensor([[start], [start + 37]])
        cos, sin = rotation(at, 16, 10000.0)
        products.append((rotate(x, cos[:1], sin[:1]) * rotate(y, cos[1:], sin[1:])).sum())
    torch.testing.assert_close(products[0], products[1], **TOLERANCE)


def test_an_hour_into_a_stream_decoding_is_the_same():
    """Attention knows distances only, so once its first frames are out of sight a stream's position does not matter."""
    codec = tiny_codec()
    codes = random_codes(codec, 40, 5)
    sight = 16  # frames that the tiny codec's windows span together
    state = codec.new_state(2)
    state.frames_seen[1] = 45_000
    early, late = (step_one(codec, state, codes, slot)[sight * codec.config.frame_samples :] for slot in (0, 1))
    torch.testing.assert_close(late, early, **TOLERANCE)
