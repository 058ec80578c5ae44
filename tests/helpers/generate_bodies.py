"""Bodies of `/generate`, and its answers held to each other."""

import base64
from typing import Any

import numpy as np
from golden_data import GOLDEN

from sglang_moss.benchmarks.reference.waveforms import pcm_of_wav


def clip(name: str) -> str:
    """A golden audio file in base64."""
    return base64.b64encode((GOLDEN / "cases" / "audio" / name).read_bytes()).decode()


def fixed(frames: int, **settings: Any) -> dict[str, Any]:
    """Settings of a request of fixed length, with its codes."""
    custom = {"return_codes": True, **settings.pop("custom_params", {})}
    return {"max_new_tokens": frames, "ignore_eos": True, "sampling_seed": 7, **settings, "custom_params": custom}


def assert_same_speech(actual: Any, expected: Any) -> None:
    """Equal codes; samples may round differently, by one step, when the codec decodes other streams beside."""
    assert actual["meta_info"]["audio_codes"] == expected["meta_info"]["audio_codes"]
    np.testing.assert_allclose(pcm_of_wav(actual["text"]), pcm_of_wav(expected["text"]), atol=1 / 32768, rtol=0)
