"""The codec's kernels against the plain torch beside them, each alone and all together."""

import pytest
import torch
from codec_models import tiny_codec, tiny_config
from torch import Tensor, nn
from triton_interpreter import DEVICE, INTERPRETED, in_interpreter_without_gpu

from sglang_moss.codec import kernels
from sglang_moss.codec.attention import attend, plan_blocks
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.fp16x3 import split, split_reference
from sglang_moss.codec.residual import Residual, RingWrite, add_and_norm_reference
from sglang_moss.codec.ring import RingKV, SlotBatch, plan_access
from sglang_moss.codec.rotary import rotate, rotation

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DOT_DTYPES = DTYPES[:2] if INTERPRETED else DTYPES  # the interpreter multiplies bfloat16's bits as integers
# Float32 noise of sums in another order, one rounding to the dtype that may fall to either side, and, in attention, the
# rounding of weights that add up to 1.
RTOL = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
ATOL = {torch.float32: 1e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=ATOL[expected.dtype], rtol=RTOL[expected.dtype])


def slot_batch(slots: list[int], n_seen: list[int], n_frames: list[int], scratch_slot: int) -> SlotBatch:
    of = [torch.tensor(numbers, device=DEVICE) for numbers in (slots, n_seen, n_frames)]
    return SlotBatch(*of, scratch_slot)


def new_ring(n_slots: int, window: int, n_heads: int, head_dim: int, dtype: torch.dtype) -> RingKV:
    """Views of memory in which a slot holds more than this ring, as in a `CodecState`."""
    memory = randn(n_slots + 1, 3, 2, window, n_heads, head_dim, dtype=dtype, seed=9)
    return RingKV(memory[:, 1, 0], memory[:, 1, 1])


def test_kernels_run_here():
    assert kernels.run_on(torch.zeros(1, device=DEVICE))
    with kernels.plain_torch():
        assert not kernels.run_on(torch.zeros(1, device=DEVICE))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_heads", "head_dim"), [(1, 2), (3, 4), (5, 12), (2, 64)])
@pytest.mark.parametrize("shared_positions", [True, False])
def test_rotation(dtype, n_heads, head_dim, shared_positions):
    positions = torch.tensor([[7, 8, 9]] if shared_positions else [[0, 1, 2], [360_000, 360_001, 360_002]])
    cos, sin = rotation(positions.to(DEVICE), head_dim, 10000.0)
    qkv = randn(2, 3, 3, n_heads, head_dim, dtype=dtype)
    expected = torch.stack([rotate(qkv[:, :, 0], cos, sin), rotate(qkv[:, :, 1], cos, sin), qkv[:, :, 2]], dim=2)
    from sglang_moss.codec.kernels.rotary import rotate_queries_and_keys

    rotate_queries_and_keys(qkv, cos, sin)
    assert_close(qkv, expected)
    assert torch.equal(qkv[:, :, 2], expected[:, :, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_heads", "head_dim"), [(3, 4), (5, 12), (1, 64)])
@pytest.mark.parametrize("has_update", [True, False])
@pytest.mark.parametrize("has_scale", [True, False])
@pytest.mark.parametrize("has_write", [True, False])
def test_residual_norm_and_ring_write(dtype, n_heads, head_dim, has_update, has_scale, has_write):
    d_model, window, scratch = n_heads * head_dim, 5, 3
    norm = nn.LayerNorm(d_model, device=DEVICE).requires_grad_(False)
    norm.weight.copy_(randn(d_model, seed=1))
    norm.bias.copy_(randn(d_model, seed=2))
    x = 3 * randn(4, 7, d_model) + 1
    update = randn(4, 7, d_model, dtype=dtype, seed=3) if has_update else None
    residual = Residual(x, update, randn(d_model, seed=4) if has_update and has_scale else None)
    # More rows than the window, some, none, and none that name a slot which another entry writes to.
    access = plan_access(slot_batch([2, 0, 1, 2], [0, 3, 8, 0], [7, 2, 0, 0], scratch), 7, 1, window)
    rings = [new_ring(scratch, window, n_heads, head_dim, dtype) for _ in range(2)]
    qkv = randn(4, 7, 3, n_heads, head_dim, dtype=dtype, seed=5)
    writes = [RingWrite(ring, access, qkv) if has_write else None for ring in rings]
    before = x.clone()
    from sglang_moss.codec.kernels.residual import add_and_norm

    total, normed = add_and_norm(residual, norm, dtype, writes[0])
    expected_total, expected_normed = add_and_norm_reference(residual, norm, dtype, writes[1])
    assert_close(total, expected_total)
    assert_close(normed, expected_normed)
    assert torch.equal(x, before)
    for by_kernel, by_torch in zip((rings[0].k, rings[0].v), (rings[1].k, rings[1].v), strict=True):
        assert torch.equal(by_kernel[:scratch], by_torch[:scratch])


@pytest.mark.parametrize(("dtype", "precision"), [*((dtype, "ieee") for dtype in DOT_DTYPES), (DTYPES[0], "tf32x3")])
@pytest.mark.parametrize("window", [1, 2, 7, 100])
@pytest.mark.parametrize(("n_heads", "head_dim", "n_rows"), [(2, 4, 1), (1, 12, 5), (3, 6, 70), (1, 64, 33)])
def test_attention_in_the_ring(dtype, precision, window, n_heads, head_dim, n_rows):
    """Fresh, young, old and empty slots; what no query may see is NaN."""
    n_seen = [0, window // 2, 5 * window + 3, 4]
    n_real = [n_rows, (n_rows + 1) // 2, n_rows, 0]
    access = plan_access(slot_batch([3, 0, 2, 1], n_seen, n_real, 4), n_rows, 1, window)
    ring = new_ring(4, window, n_heads, head_dim, dtype)
    qkv = randn(4, n_rows, 3, n_heads, head_dim, dtype=dtype, seed=6)
    q, k, v = qkv.unbind(2)
    old_k, old_v = ring.history(access)
    n_missing = (window - 1 - access.n_seen).clamp(min=0)
    blocks = plan_blocks(
        n_rows, window, device=q.device, dtype=torch.float32, n_history=window - 1, n_missing=n_missing
    )
    keys, values = torch.cat((old_k, k), dim=1).float(), torch.cat((old_v, v), dim=1).float()
    expected = attend(q.float(), keys, values, blocks).to(dtype)

    for slot, seen in zip([3, 0, 2, 1], n_seen, strict=True):
        for column in range(window):
            if column >= seen:
                ring.k[slot, column] = ring.v[slot, column] = torch.nan
    ring.k[4] = ring.v[4] = torch.nan
    for entry, real in enumerate(n_real):
        qkv[entry, real:] = torch.nan
    from sglang_moss.codec.kernels.attention import attend_in_ring

    mixed = attend_in_ring(qkv, ring, access, precision)
    assert mixed.dtype == dtype
    for entry, real in enumerate(n_real):
        assert_close(mixed[entry, :real], expected[entry, :real])


@pytest.mark.parametrize("dtype", DOT_DTYPES)
def test_decoding_in_steps_with_kernels_equals_plain_torch(dtype):
    """Ragged steps longer and shorter than the windows, padding that names a slot in use, NaN in the scratch slot."""
    codec = Codec(CodecConfig.from_dict(tiny_config())).to(DEVICE)
    codec.load_state_dict(tiny_codec().state_dict())
    codec.post_load()
    codec.to_serving_dtype(dtype)
    codes = torch.randint(17, (2, 3, 5, 5), generator=torch.Generator().manual_seed(8)).to(DEVICE)
    slots = torch.tensor([[0, 2, 4], [2, 0, 0]], device=DEVICE)
    n_frames = torch.tensor([[2, 5, 0], [1, 4, 0]], device=DEVICE)

    def run() -> tuple[list[Tensor], Tensor]:
        state = codec.new_state(4)
        state.memory[4].fill_(torch.nan)
        samples = [codec.decode_step(state, *step) for step in zip(codes, n_frames, slots, strict=True)]
        return samples, state.memory[:4]

    by_kernels, state = run()
    with kernels.plain_torch():
        expected, expected_state = run()
    assert not any(samples.isnan().any() for samples in by_kernels)
    error = torch.cat(by_kernels, dim=1) - torch.cat(expected, dim=1)
    snr = 10 * torch.log10(torch.cat(expected, dim=1).square().mean() / error.square().mean().clamp(min=1e-30))
    # Both sides round at the same places, but sums that differ in float32 may be rounded to either neighbour.
    assert snr > {torch.float32: 100, torch.float16: 50, torch.bfloat16: 32}[dtype]
    state_error = (state - expected_state).float().abs().max()
    assert state_error < {torch.float32: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.4}[dtype]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 1280)])
@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1.0, 6e4])
def test_rows_as_halves(shape, scale):
    x = randn(*shape).clamp(-1, 1) * scale
    assert torch.equal(split(x), split_reference(x))


@pytest.mark.parametrize("precision", ["ieee", "fp16x3"])
def test_encoding_with_kernels_equals_plain_torch(precision):
    codec = Codec(CodecConfig.from_dict(tiny_config())).to(DEVICE)
    codec.to_encoder_precision(precision)
    codec.load_state_dict(tiny_codec().state_dict())
    codec.post_load()
    samples = randn(2, 60)
    hidden = codec.encoder_hidden(samples)
    with kernels.plain_torch():
        torch.testing.assert_close(hidden, codec.encoder_hidden(samples), atol=1e-5, rtol=0)


in_interpreter_without_gpu(globals())
