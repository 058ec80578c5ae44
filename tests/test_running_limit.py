"""How many requests run at a time where nobody says, at the codec's real shape."""

import json

import pytest
from golden_data import GOLDEN

from sglang_moss.benchmarks.shapes.real_shapes import codec_shape
from sglang_moss.running_limit import running_requests

CODEC = json.loads((GOLDEN / "codec" / "config.json").read_text()) | codec_shape()


@pytest.mark.parametrize(
    ("memory_mib", "codec_slots", "dtype", "expected"),
    [
        (None, None, "auto", 128),  # no GPU
        (24_564, None, "auto", 128),  # an RTX 4090: some streams would wait for a slot
        (81_559, None, "auto", 128),  # an H100
        (143_771, None, "auto", 232),  # an H200: 266 slots of 85 MB are 0.15 of it
        (143_771, None, "float32", 128),
        (143_771, 200, "auto", 168),  # what is asked for is what counts
        (183_359, None, "auto", 256),  # a B200
    ],
)
def test_as_many_run_as_can_stream_within_two_bounds(memory_mib, codec_slots, dtype, expected):
    assert running_requests(CODEC, dtype, codec_slots, memory_mib) == expected
