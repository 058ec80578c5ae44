"""The codec at its real shape with random weights: what half precision costs in sound, and what a step costs in time.

    python -m sglang_moss.benchmarks.codec --out codec.jsonl

Weights are drawn in float32, with layer scales of several sizes: the larger they are, the more of a rounding error is
heard. Needs torch and Triton, no SGLang. `--config` takes another codec's config.json, small ones run on a CPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglang_moss.codec import kernels
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig, TransformerShape
from sglang_moss.codec.encoder_runner import WINDOW_FRAMES, EncoderRunner
from sglang_moss.codec.runner import DecoderRunner

from .runs.record import record
from .shapes.random_weights import draw_weight
from .shapes.real_shapes import codec_shape

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_LAYER_SCALES = (0.01, 0.1, 0.5)
_CHUNKS = (3, 32)  # frames a step
_SNR_FRAMES = 160
_STEPS = ((1, 1), (1, 2), (1, 4), (1, 16), (1, 64), (4, 4), (16, 1), (16, 4), (16, 32), (64, 1), (64, 4), (64, 8))
_ENCODED = ((1, 10.0), (2, 10.0), (16, 10.0))  # clips, seconds of each
_WINDOWED_S = 300.0  # of one clip, window by window
_SHAPE_RATES = {"sampling_rate": 24_000, "downsample_rate": 1920, "causal_transformer_context_duration": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="config.json of a codec instead of the real shape")
    parser.add_argument("--n-vq", type=int, default=16)
    parser.add_argument("--slots", type=int, default=64, help="of the state for steps; limits their streams")
    parser.add_argument("--dtype", nargs="*", default=["float16"], help="of the decoder whose steps are timed")
    parser.add_argument("--parts", nargs="+", default=["snr", "steps", "encode"], choices=["snr", "steps", "encode"])
    parser.add_argument("--out", type=Path, default=Path("codec.jsonl"))
    args = parser.parse_args()
    config = json.loads(args.config.read_text()) if args.config else _SHAPE_RATES | codec_shape()
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        codec = Codec(CodecConfig.from_dict(config))
    if "snr" in args.parts:
        record(args.out, measure_snr(codec, args.n_vq))
    if "encode" in args.parts:
        before, began = _memory_of(codec), time.perf_counter()
        runner = EncoderRunner(codec, args.n_vq)  # before the weights, as a server has it
        line = {"check": "encoder", "seconds_to_build": time.perf_counter() - began}
        record(args.out, iter([line | {"bytes": _memory_of(codec) - before, "slots": runner.n_slots}]))
        draw_weights(codec, layer_scale=0.1)
        record(args.out, measure_windows(codec, runner, args.n_vq))
        record(args.out, measure_encoding(codec))
    draw_weights(codec, layer_scale=0.1)
    if "steps" in args.parts:
        for name in args.dtype:
            draw_weights(codec, layer_scale=0.1)
            codec.to_serving_dtype(getattr(torch, name))
            record(args.out, measure_steps(codec, args.n_vq, args.slots))


def draw_weights(codec: Codec, layer_scale: float, seed: int = 0) -> None:
    """Random float32 weights under which activations keep their size, and scales around `layer_scale`."""
    codec.to_serving_dtype(torch.float32)
    generator = torch.Generator(codec.device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            draw_weight(name, parameter, generator, layer_scale, spread=0.1)
    codec.post_load()


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
    before = _memory_of(codec)
    began = time.perf_counter()
    runner = DecoderRunner(codec, state, n_vq, max_streams=n_slots, max_frames=64)
    line = {"check": "runner", "dtype": _name(codec.serving_dtype), "seconds_to_build": time.perf_counter() - began}
    yield line | {"bytes_per_slot": slot_bytes, "graph_bytes": _memory_of(codec) - before, "slots": n_slots}

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
        seconds = _median_seconds(lambda s=stretches, t=slots: runner.decode(s, t), repeats=20)
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
    seconds = _median_seconds(lambda: _synchronised(codec, lambda: runner.copy_slot(0, 1)), repeats=20)
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


def measure_windows(codec: Codec, runner: EncoderRunner, n_vq: int) -> Iterator[dict[str, Any]]:
    """Windows as the codec's thread encodes them: against one shot, and the time of a step once the rings are full."""
    frame, rate = codec.config.frame_samples, codec.config.sampling_rate
    noise = np.random.default_rng(3)

    def window(n_frames: int) -> np.ndarray:
        return noise.normal(0, 0.1, n_frames * frame).astype(np.float32)

    waveform = window(int(_WINDOWED_S * rate) // frame)
    expected = codec.encode([torch.from_numpy(waveform).to(codec.device)])[0][:, :n_vq].cpu().numpy()
    runner.reset(0)
    began, before = time.perf_counter(), _memory_of(codec)
    size = WINDOW_FRAMES * frame
    parts = [runner.encode([waveform[start : start + size]], [0])[0] for start in range(0, len(waveform), size)]
    seconds = time.perf_counter() - began
    line: dict[str, Any] = {"check": "windows", "seconds_each": _WINDOWED_S, "ms": 1e3 * seconds}
    line |= {"audio_s_per_s": _WINDOWED_S / seconds, "bytes_more": _memory_of(codec) - before}
    yield line | {"frames": len(expected), "frames_that_differ": int((np.concatenate(parts) != expected).any(1).sum())}
    for n_clips in range(1, runner.n_slots + 1):
        for n_frames in (8, 16, 32, 64):
            windows, slots = [window(n_frames) for _ in range(n_clips)], range(n_clips)
            seconds = _median_seconds(lambda w=windows, s=slots: runner.encode(w, s), repeats=20)
            total_s = n_clips * n_frames * frame / rate
            line = {"check": "window", "clips": n_clips, "frames": n_frames, "ms": 1e3 * seconds}
            yield line | {"audio_s_per_s": total_s / seconds}


def measure_encoding(codec: Codec) -> Iterator[dict[str, Any]]:
    rate = codec.config.sampling_rate
    for n_clips, seconds_each in _ENCODED:
        clips = [0.1 * torch.randn(int(seconds_each * rate), device=codec.device) for _ in range(n_clips)]
        for name, way in (("kernels", nullcontext), ("torch", kernels.plain_torch)):
            with way():
                encode = lambda c=clips: _synchronised(codec, lambda: codec.encode(c))  # noqa: E731
                seconds = _median_seconds(encode, repeats=5)
            yield {
                "check": "encode",
                "way": name,
                "clips": n_clips,
                "seconds_each": seconds_each,
                "ms": 1e3 * seconds,
                "audio_s_per_s": n_clips * seconds_each / seconds,
            }


def _median_seconds(call: Callable[[], object], repeats: int) -> float:
    for _ in range(2):
        call()
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _synchronised(codec: Codec, call: Callable[[], object]) -> None:
    call()
    if codec.device.type == "cuda":
        torch.cuda.synchronize(codec.device)


def _memory_of(codec: Codec) -> int:
    return torch.cuda.memory_reserved(codec.device) if codec.device.type == "cuda" else 0


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
