"""The decoder at its real shape with random weights: what half precision costs in sound, and a step in time.

    python -m sglang_moss.benchmarks.codec --out codec.jsonl

Weights are drawn in float32, with layer scales of several sizes: the larger they are, the more of a rounding error is
heard. Needs torch and Triton, no SGLang. `--config` takes another codec's config.json, small ones run on a CPU.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglang_moss.codec import kernels
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import TransformerShape
from sglang_moss.codec.runner import DecoderRunner

from .runs.record import record
from .shapes.codec_model import draw_weights, median_seconds, memory_of, new_codec, synchronised

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_LAYER_SCALES = (0.01, 0.1, 0.5)
_CHUNKS = (3, 32)  # frames a step
_SNR_FRAMES = 160
_STEPS = ((1, 1), (1, 2), (1, 4), (1, 16), (1, 64), (4, 4), (16, 1), (16, 4), (16, 32), (64, 1), (64, 4), (64, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="config.json of a codec instead of the real shape")
    parser.add_argument("--n-vq", type=int, default=16)
    parser.add_argument("--slots", type=int, default=64, help="of the state for steps; limits their streams")
    parser.add_argument("--dtype", nargs="*", default=["float16"], help="of the decoder whose steps are timed")
    parser.add_argument("--parts", nargs="+", default=["snr", "steps"], choices=["snr", "steps"])
    parser.add_argument("--out", type=Path, default=Path("codec.jsonl"))
    args = parser.parse_args()
    codec = new_codec(args.config)
    if "snr" in args.parts:
        record(args.out, measure_snr(codec, args.n_vq))
    if "steps" in args.parts:
        for name in args.dtype:
            draw_weights(codec, layer_scale=0.1)
            codec.to_serving_dtype(getattr(torch, name))
            record(args.out, measure_steps(codec, args.n_vq, args.slots))


def measure_snr(codec: Codec, n_vq: int) -> Iterator[dict[str, Any]]:
    """Against decoding in one shot in float32 and plain torch: one shot, and steps of ragged batches."""
    codes = torch.randint(
        codec.config.codebook_size, (_SNR_FRAMES, n_vq), generator=torch.Generator().manual_seed(1)
    ).to(codec.device)
    for layer_scale in _LAYER_SCALES:
        draw_weights(codec, layer_scale)
        with kernels.plain_torch():
            expected = codec.decode(codes)
        for dtype in _DTYPES:
            draw_weights(codec, layer_scale)
            codec.to_serving_dtype(dtype)
            line: dict[str, Any] = {"check": "snr", "layer_scale": layer_scale, "dtype": _name(dtype)}
            line |= {
                "rms": expected.square().mean().sqrt().item(),
                "snr_db_one_shot": snr_db(codec.decode(codes), expected),
            }
            for chunk in _CHUNKS:
                stepped = decode_in_steps(codec, codes, chunk)
                line[f"snr_db_steps_of_{chunk}"] = snr_db(stepped, expected)
                with kernels.plain_torch():
                    by_torch = decode_in_steps(codec, codes, chunk)
                line[f"snr_db_steps_of_{chunk}_torch"] = snr_db(by_torch, expected)
                line[f"snr_db_steps_of_{chunk}_kernels_to_torch"] = snr_db(stepped, by_torch)
            yield line


def decode_in_steps(codec: Codec, codes: Tensor, chunk: int) -> Tensor:
    """The codes [T, n] in one slot, beside another stream that is one frame shorter in each step."""
    state = codec.new_state(2)
    slots = torch.tensor([1, 0], device=codec.device)
    parts = []
    for piece in codes.split(chunk):
        n_frames = torch.tensor([len(piece), len(piece) - 1], device=codec.device)
        parts.append(codec.decode_step(state, torch.stack((piece, piece.flip(0))), n_frames, slots)[0])
    return torch.cat(parts)


def snr_db(actual: Tensor, expected: Tensor) -> float:
    error = (actual.double() - expected.double()).square().sum()
    return (10 * torch.log10(expected.double().square().sum() / error.clamp(min=1e-30))).item()


def measure_steps(codec: Codec, n_vq: int, n_slots: int) -> Iterator[dict[str, Any]]:
    """`DecoderRunner.decode` as its caller sees it, once every slot's windows are full."""
    state, slot_bytes = codec.new_state(n_slots), codec.slot_bytes(codec.serving_dtype)
    before = memory_of(codec)
    began = time.perf_counter()
    runner = DecoderRunner(codec, state, n_vq, max_streams=n_slots, max_frames=64)
    line = {"check": "runner", "dtype": _name(codec.serving_dtype), "seconds_to_build": time.perf_counter() - began}
    yield line | {"bytes_per_slot": slot_bytes, "graph_bytes": memory_of(codec) - before, "slots": n_slots}

    generator = np.random.default_rng(2)

    def codes(frames: int) -> np.ndarray:
        return generator.integers(codec.config.codebook_size, size=(frames, n_vq))

    window = round(codec.config.context_s * codec.config.frame_rate)
    for slot in range(n_slots):
        runner.reset(slot)
        for _ in range(-(-window // 64)):
            runner.decode([codes(64)], [slot])
    cost = step_cost(codec)
    for n_streams, n_frames in _STEPS:
        if n_streams > n_slots:
            continue
        stretches, slots = [codes(n_frames) for _ in range(n_streams)], range(n_streams)
        seconds = median_seconds(lambda s=stretches, t=slots: runner.decode(s, t), repeats=20)
        total = n_streams * n_frames
        yield {
            "check": "step",
            "dtype": _name(codec.serving_dtype),
            "streams": n_streams,
            "frames": n_frames,
            "ms": 1e3 * seconds,
            "frames_per_s": total / seconds,
            "tflop_per_s": 1e-12 * total * cost["flop_per_frame"] / seconds,
            "gb_per_s": 1e-9 * (cost["weight_bytes"] + n_streams * slot_bytes) / seconds,
        }
    seconds = median_seconds(lambda: synchronised(codec, lambda: runner.copy_slot(0, 1)), repeats=20)
    yield {"check": "copy_slot", "ms": 1e3 * seconds, "gb_per_s": 2e-9 * slot_bytes / seconds}


def step_cost(codec: Codec) -> dict[str, float]:
    """Arithmetic of a frame whose windows are full, and the decoder's weights, each read once a step."""
    flop = 0
    for shape in codec.config.decoder:
        if isinstance(shape, TransformerShape):
            linear = shape.d_model * (4 * shape.d_model + 2 * shape.feed_forward_dim)
            attention = 2 * shape.window * shape.d_model
            flop += 2 * shape.rows_per_frame * shape.n_layers * (linear + attention)
    return {"flop_per_frame": flop, "weight_bytes": sum(p.nbytes for p in codec.decoder.parameters())}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
