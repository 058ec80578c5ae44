"""What of a product's weights may be brought ahead."""

import pytest
import torch
from torch import Tensor

from sglang_moss.backbone.ahead import ahead_of
from sglang_moss.backbone.operations import FP8

MB = 1 << 20


def weight(n_out: int, n_in: int) -> Tensor:
    """As SGLang keeps it."""
    return torch.empty(n_out, n_in, dtype=FP8).t()


@pytest.mark.parametrize(
    ("n_out", "n_in", "n_bytes", "head", "piece"),
    [
        (4096, 4096, 16 * MB, 4096, 2048),  # all of it
        (4096, 12288, 16 * MB, 4096, 2048),
        (4096, 12288, 1000 * MB, 12288, 2048),
        (6144, 4096, 16 * MB, 2560, 512),
        (24576, 4096, 16 * MB, 512, 512),
        (8192, 4096, 24 * MB, 3072, 1024),
    ],
)
def test_each_row_gives_as_much(n_out, n_in, n_bytes, head, piece):
    found = ahead_of(weight(n_out, n_in), n_bytes)
    assert found is not None
    assert (found.weights.shape, found.weights.is_contiguous()) == ((n_out, n_in), True)
    assert (found.head_bytes, found.row_bytes, found.n_bytes) == (head, n_in, n_out * head)
    assert found.n_bytes <= n_bytes
    assert found.piece_bytes == piece


@pytest.mark.parametrize(
    ("given", "n_bytes"),
    [
        (weight(4096, 4096), 0),
        (weight(4096, 4096), MB),  # 256 bytes of each row
        (weight(64, 1000), MB),
        (torch.empty(64, 2048, dtype=FP8)[:, ::2].t(), MB),
        (torch.empty(4096, 4096, dtype=FP8), 16 * MB),
    ],
    ids=["none is wanted", "too little", "rows begin anywhere", "torn", "the other way round"],
)
def test_nothing_is_asked_for_that_a_kernel_could_not(given, n_bytes):
    assert ahead_of(given, n_bytes) is None


def test_a_weight_that_begins_between_two_units_is_left_alone():
    memory = torch.empty(64 * 1024 + 1, dtype=FP8)
    assert ahead_of(memory[:-1].view(64, 1024).t(), MB) is not None
    assert ahead_of(memory[1:].view(64, 1024).t(), MB) is None
