"""How many requests run at a time where nobody says, at the codec's real shape."""

import json

import pytest
import torch
from golden_data import GOLDEN

from sglang_moss import running_limit, server_args
from sglang_moss.benchmarks.shapes.real_shapes import codec_shape
from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.state import CodecState, affordable_slots
from sglang_moss.decode.stream_decoder import slots_for
from sglang_moss.running_limit import running_requests
from sglang_moss.server_args import MossServerArgs

CODEC = json.loads((GOLDEN / "codec" / "config.json").read_text()) | codec_shape()
SLOT_BYTES = CodecState.slot_bytes(CodecConfig.from_dict(CODEC).decoder, torch.float16)


@pytest.mark.parametrize(
    ("memory_mib", "codec_slots", "dtype", "expected"),
    [
        (None, None, "auto", 128),  # no GPU
        (24_564, None, "auto", 128),  # an RTX 4090: some streams would wait for a slot
        (81_559, None, "auto", 128),  # an H100
        (143_771, None, "auto", 224),  # an H200
        (143_771, None, "float32", 128),
        (143_771, 200, "auto", 168),  # what is asked for is what counts
        (183_359, None, "auto", 256),  # a B200
    ],
)
def test_as_many_run_as_can_stream_within_two_bounds(memory_mib, codec_slots, dtype, expected):
    assert running_requests(CODEC, dtype, codec_slots, memory_mib) == expected


@pytest.mark.parametrize("gib", [79.0, 139.7])  # an H100 and an H200, as a process sees them
def test_each_of_them_has_a_slot(gib):
    slots = affordable_slots(int(gib * 2**30), SLOT_BYTES)
    assert slots_for(running_requests(CODEC, "auto", None, gib * 1024 * 1.008)) <= slots


def test_a_server_asks_for_its_own_slots_dtype_and_memory(fused_path, monkeypatch):
    asked = []
    monkeypatch.setattr(server_args, "is_cuda", lambda: True)
    monkeypatch.setattr(server_args, "get_device_memory_capacity", lambda _device: 1000.0)
    monkeypatch.setattr(running_limit, "running_requests", lambda *facts: asked.append(facts[1:]) or 150)
    assert MossServerArgs(model_path=str(fused_path), codec_slots=9, codec_dtype="float32").max_running_requests == 150
    assert MossServerArgs(model_path=str(fused_path), device="cpu").max_running_requests == 150
    assert MossServerArgs(model_path=str(fused_path), max_running_requests=7).max_running_requests == 7
    assert asked == [("float32", 9, 1000.0), ("auto", None, None)]
