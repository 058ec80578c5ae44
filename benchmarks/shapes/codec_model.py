"""A codec of the real shape, or another, with random weights, and how long something takes with it."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig

from .random_weights import draw_weight
from .real_shapes import codec_shape

_RATES = {"sampling_rate": 24_000, "downsample_rate": 1920, "causal_transformer_context_duration": 10}


def new_codec(config: Path | None) -> Codec:
    """On the GPU if there is one; of the real shape, or that of a config.json. `draw_weights` comes before any use."""
    shape = json.loads(config.read_text()) if config else _RATES | codec_shape()
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return Codec(CodecConfig.from_dict(shape))


def draw_weights(codec: Codec, layer_scale: float, seed: int = 0) -> None:
    """Random float32 weights under which activations keep their size, and scales around `layer_scale`."""
    codec.to_serving_dtype(torch.float32)
    generator = torch.Generator(codec.device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            draw_weight(name, parameter, generator, layer_scale, spread=0.1)
    codec.post_load()


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    for _ in range(2):
        call()
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def synchronised(codec: Codec, call: Callable[[], object]) -> None:
    call()
    if codec.device.type == "cuda":
        torch.cuda.synchronize(codec.device)


def memory_of(codec: Codec) -> int:
    """Bytes of the GPU that are in use, without what torch keeps for later."""
    if codec.device.type == "cuda":
        torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(codec.device) if codec.device.type == "cuda" else 0
