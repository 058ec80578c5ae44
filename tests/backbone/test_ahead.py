"""What of a product's weights may be brought ahead."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_moss.backbone.ahead import ahead_of
from sglang_moss.backbone.operations import FP8

MB = 1 << 20


def product(n_out: int, n_in: int, dtype: torch.dtype, transposed: bool = False) -> Any:
    weight = torch.empty(n_out, n_in, dtype=dtype)
    return SimpleNamespace(weight=weight.t() if transposed else weight)


@pytest.mark.parametrize(
    ("n_out", "n_in", "dtype", "n_bytes", "head"),
    [
        (4096, 4096, FP8, 16 * MB, 4096),  # all of it
        (4096, 12288, FP8, 16 * MB, 4096),
        (4096, 12288, FP8, 1000 * MB, 8192),  # a power of two
        (6144, 4096, FP8, 16 * MB, 2048),
        (24576, 4096, torch.bfloat16, 16 * MB, 512),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_each_row_gives_as_much(n_out, n_in, dtype, n_bytes, head, transposed):
    found = ahead_of(product(n_out, n_in, dtype, transposed), n_bytes)
    assert found is not None
    assert (found.weights.shape, found.head_bytes) == ((n_out, n_in), head)
    assert found.row_bytes == n_in * dtype.itemsize
    assert found.n_pieces * found.piece_bytes == n_out * head <= n_bytes


@pytest.mark.parametrize(
    ("given", "n_bytes"),
    [
        (product(4096, 4096, FP8), 0),
        (product(4096, 4096, FP8), MB),  # 256 bytes of each row
        (product(64, 1000, FP8), MB),  # rows that begin anywhere
        (SimpleNamespace(), MB),
        (SimpleNamespace(weight=torch.empty(4096)), MB),
        (SimpleNamespace(weight=torch.empty(64, 2048)[:, ::2]), MB),
    ],
    ids=["none is wanted", "too little", "not aligned", "no weight", "no matrix", "torn"],
)
def test_nothing_is_asked_for_that_a_kernel_could_not(given, n_bytes):
    assert ahead_of(given, n_bytes) is None
