"""The kernel of decoding steps' attention against the plain torch beside it."""

import pytest
import torch
from torch import Tensor
from triton_interpreter import DEVICE, INTERPRETED, in_interpreter_without_gpu

from sglang_moss.attention import decode, proof
from sglang_moss.attention.kernels import decode as kernel
from sglang_moss.attention.kernels.decode import attend

# The interpreter multiplies bfloat16's bits as integers.
DTYPES = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]
CACHED = [None, torch.float8_e4m3fn]  # None: as the queries
# Of outputs that are means of values around 1: a rounding of the weights, and one of the output.
ATOL = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def inputs(
    lengths: list[int],
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    page_size: int,
    dtype: torch.dtype,
    cached: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, caches with pages in any order and others' rows between them, table, lengths."""
    generator = torch.Generator().manual_seed(sum(lengths))
    n_pages = [-(-length // page_size) for length in lengths]
    order = torch.randperm(sum(n_pages) + 3, generator=generator)
    keys, values = (
        torch.randn(len(order), page_size, n_kv_heads, head_dim, generator=generator).to(DEVICE, cached)
        for _ in range(2)
    )
    table = torch.full((len(lengths), max(n_pages) + 5), len(order) - 1, dtype=torch.int32)
    for row, n, pages in zip(table, n_pages, order.split([*n_pages, 3]), strict=False):
        row[:n] = pages
    q = torch.randn(len(lengths), n_heads, head_dim, generator=generator).to(DEVICE, dtype)
    return q, keys, values, table.to(DEVICE), torch.tensor(lengths, dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cached", CACHED)
@pytest.mark.parametrize(
    ("lengths", "n_heads", "n_kv_heads", "head_dim", "page_size"),
    [
        ([1, 64, 65, 200], 8, 2, 128, 1),
        ([127, 128, 129, 3], 4, 4, 32, 1),
        ([130, 17], 16, 2, 64, 16),
    ],
)
def test_attention_is_that_of_plain_torch(dtype, cached, lengths, n_heads, n_kv_heads, head_dim, page_size):
    operands = inputs(lengths, n_heads, n_kv_heads, head_dim, page_size, dtype, cached or dtype)
    expected = decode.attend(*operands, head_dim**-0.5)
    torch.testing.assert_close(attend(*operands, head_dim**-0.5), expected, atol=ATOL[dtype], rtol=0)


def test_large_tiles_are_for_few_programs_over_8_bits(monkeypatch):
    many, few = kernel._tile(kernel.FEW_PROGRAMS + 1, in_pairs=True), kernel._tile(kernel.FEW_PROGRAMS, in_pairs=True)
    assert few[0] > many[0]
    assert kernel._tile(1, in_pairs=False) == kernel._tile(kernel.FEW_PROGRAMS + 1, in_pairs=False)
    operands = inputs([31, 32, 33, 63, 96, 130], 8, 2, 64, 1, DTYPES[0], torch.float8_e4m3fn)
    asked, tile = [], kernel._tile
    monkeypatch.setattr(kernel, "_tile", lambda *args: asked.append(args) or tile(*args))
    monkeypatch.setattr(kernel, "FEW_PROGRAMS", 11)
    expected = decode.attend(*operands, 0.125)
    torch.testing.assert_close(attend(*operands, 0.125), expected, atol=ATOL[DTYPES[0]], rtol=0)
    assert asked == [(12, True)]  # heads of all requests


def test_every_value_of_8_bits_counts_as_itself():
    """A request of one row has that row as its attention, whatever it is."""
    bits = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    finite = bits[bits.float().isfinite()]  # the interpreter knows no NaN of theirs
    values = torch.cat([finite, finite[: -len(finite) % 32]]).reshape(-1, 1, 1, 32).to(DEVICE)
    n = len(values)
    q = torch.zeros(n, 1, 32, dtype=torch.float16, device=DEVICE)
    table = torch.arange(n, dtype=torch.int32, device=DEVICE)[:, None]
    found = attend(q, values, values, table, torch.ones(n, dtype=torch.int32, device=DEVICE), 1.0)
    assert torch.equal(found, values[:, 0].to(torch.float16))


@pytest.mark.parametrize("cached", CACHED)
def test_a_request_does_not_depend_on_its_company(cached):
    dtype = DTYPES[-1]
    q, keys, values, table, lengths = inputs([70, 130, 9], 8, 2, 64, 1, dtype, cached or dtype)
    together = attend(q, keys, values, table, lengths, 0.125)
    for i in range(3):
        alone = attend(q[i : i + 1].clone(), keys, values, table[i : i + 1], lengths[i : i + 1], 0.125)
        assert torch.equal(alone[0], together[i])


def test_what_lies_beyond_a_requests_rows_is_not_heard():
    dtype = DTYPES[-1]
    q, keys, values, table, lengths = inputs([70, 30], 8, 2, 64, 16, dtype, dtype)
    expected = attend(q, keys, values, table, lengths, 0.125)
    for cache in (keys, values):
        flat = cache.flatten(0, 1)
        used = torch.zeros(len(flat), dtype=torch.bool, device=DEVICE)
        for pages, length in zip(table, lengths.tolist(), strict=True):
            rows = torch.arange(length, device=DEVICE)
            used[pages[rows // 16] * 16 + rows % 16] = True
        flat[~used] = float("nan")
    assert torch.equal(attend(q, keys, values, table, lengths, 0.125), expected)


@pytest.mark.parametrize("cached", CACHED)
def test_the_proof_holds(cached, monkeypatch):
    monkeypatch.setattr(proof, "FEW_PROGRAMS", 6)
    monkeypatch.setattr(kernel, "FEW_PROGRAMS", 6)
    proof.prove(4, 2, 32, 16, DTYPES[-1], cached or DTYPES[-1], DEVICE)


in_interpreter_without_gpu(globals())
