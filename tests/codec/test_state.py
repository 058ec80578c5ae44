"""Slots of the codec: as asked, else one a request within a share of the device's memory."""

import pytest
import torch

from sglang_moss.codec.state import codec_dtype, stream_slots

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Card:
    total_memory = 24 * 10**9


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: Card)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("device", [CPU, GPU])
def test_what_was_asked_for_is_taken_as_it_is(device):
    assert stream_slots(7, 128, 10**12, device) == 7


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("wanted", "slot_bytes", "expected"),
    [(147, 85 * 10**6, 42), (16, 85 * 10**6, 16), (128, 10**10, 2)],
)
def test_on_a_gpu_what_is_wanted_within_a_share_of_its_memory(wanted, slot_bytes, expected):
    assert stream_slots(None, wanted, slot_bytes, GPU) == expected


@pytest.mark.parametrize(("n_requests", "expected"), [(128, 16), (4, 4), (1, 2)])
def test_without_a_gpu_a_few(n_requests, expected):
    assert stream_slots(None, n_requests, 10**9, CPU) == expected


def test_half_precision_is_for_gpus_unless_asked_for():
    assert codec_dtype("auto", GPU) is torch.float16
    assert codec_dtype("auto", CPU) is torch.float32
    assert codec_dtype("bfloat16", CPU) is torch.bfloat16
