"""The codec's encoder at its real shape with random weights, in each precision: its time, and the codes that it gives.

    python -m sglang_moss.benchmarks.encoder --clips recipes/small_voice/voices --out encoder.jsonl

Codes are compared with those of one shot in float32 and plain torch, from which float32 itself differs where two codes
are equally near. Weights have layer scales of several sizes: the larger they are, the more a rounding error counts.
Needs torch and Triton, no SGLang. `--config` takes another codec's config.json, small ones run on a CPU.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from sglang_moss.codec import kernels
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.encoder_runner import EncoderRunner

from .runs.record import record
from .shapes.codec_model import draw_weights, median_seconds, memory_of, new_codec

_LAYER_SCALES = (0.01, 0.1, 0.5)
_NOISE_S = 60.0
_PROFILED = 5  # windows
_KINDS = {"attention": "_attention", "halves": "_split", "norms": "_norm", "rotation": "_rotate"}  # parts of names
_PRODUCTS = ("gemm", "cutlass", "nvjet", "splitk", "cublas")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="config.json of a codec instead of the real shape")
    parser.add_argument("--n-vq", type=int, default=16, help="codebooks (%(default)s)")
    parser.add_argument("--precision", nargs="+", default=["ieee", "fp16x3"], choices=["ieee", "fp16x3"])
    parser.add_argument("--layer-scale", nargs="+", type=float, default=_LAYER_SCALES)
    parser.add_argument("--clips", type=Path, help="folder of WAV files at the codec's rate, beside a minute of noise")
    parser.add_argument("--out", type=Path, default=Path("encoder.jsonl"))
    args = parser.parse_args()
    record(args.out, measure(args))


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    waveforms = clips_of(args.clips, new_codec(args.config))
    expected = {scale: one_shot(args.config, scale, waveforms, args.n_vq) for scale in args.layer_scale}
    for precision in args.precision:
        for layer_scale, codes in expected.items():
            yield from measure_one(args, precision, layer_scale, waveforms, codes)


def measure_one(
    args: argparse.Namespace,
    precision: str,
    layer_scale: float,
    waveforms: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
) -> Iterator[dict[str, Any]]:
    """Codes for weights of one kind; for the first of them, what does not depend on weights as well."""
    codec = new_codec(args.config)
    codec.to_encoder_precision(precision)
    before, began = memory_of(codec), time.perf_counter()
    runner = EncoderRunner(codec, args.n_vq)  # before the weights, as a server has it
    seconds = time.perf_counter() - began
    built = {"slots": runner.n_slots, "seconds_to_build": seconds, "bytes": memory_of(codec) - before}
    draw_weights(codec, layer_scale)
    found = differences([in_windows(runner, waveform) for waveform in waveforms], expected)
    yield {"check": "codes", "precision": precision, "layer_scale": layer_scale, **found}
    if layer_scale == args.layer_scale[0]:
        yield {"check": "encoder", "precision": precision, **built}
        for line in times(runner, codec):
            yield {"check": "window", "precision": precision, **line}


def clips_of(folder: Path | None, codec: Codec) -> list[np.ndarray]:
    """Each [L] float32, whole frames."""
    rate, frame = codec.config.sampling_rate, codec.config.frame_samples
    noise = np.random.default_rng(3).normal(0, 0.1, int(_NOISE_S * rate)).astype(np.float32)
    found = [noise]
    for path in sorted(folder.glob("*.wav")) if folder else []:
        samples, its_rate = soundfile.read(path, dtype="float32")
        if its_rate != rate or samples.ndim != 1:
            raise SystemExit(f"{path}: expected one channel at {rate} Hz")
        found.append(samples.astype(np.float32))
    return [waveform[: len(waveform) // frame * frame] for waveform in found]


def one_shot(config: Path | None, layer_scale: float, waveforms: Sequence[np.ndarray], n_vq: int) -> list[np.ndarray]:
    """Codes of each waveform, [T, n_vq], in float32 and plain torch."""
    codec = new_codec(config)
    draw_weights(codec, layer_scale)
    with kernels.plain_torch():
        return [codec.encode([torch.from_numpy(w).to(codec.device)])[0][:, :n_vq].cpu().numpy() for w in waveforms]


def in_windows(runner: EncoderRunner, waveform: np.ndarray) -> np.ndarray:
    """Its codes as the codec's thread makes them, [T, n_vq]."""
    size = runner.window_frames * runner.frame_samples
    runner.reset(0)
    starts = range(0, len(waveform), size)
    return np.concatenate([runner.encode([waveform[start : start + size]], [0])[0] for start in starts])


def differences(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict[str, int]:
    """How many frames and codes there are, and how many differ."""
    differ = np.concatenate([a != b for a, b in zip(found, expected, strict=True)])
    return {
        "frames": len(differ),
        "frames_that_differ": int(differ.any(1).sum()),
        "codes": differ.size,
        "codes_that_differ": int(differ.sum()),
    }


def times(runner: EncoderRunner, codec: Codec) -> Iterator[dict[str, Any]]:
    """Of windows whose history is full: all of it, and on a GPU the kernels' by kind."""
    frame, rate, noise = codec.config.frame_samples, codec.config.sampling_rate, np.random.default_rng(4)
    for n_clips in range(1, runner.n_slots + 1):
        for n_frames in (n for n in (8, 16, 32, 64, 128) if n <= runner.window_frames):
            windows = [noise.normal(0, 0.1, n_frames * frame).astype(np.float32) for _ in range(n_clips)]
            slots = range(n_clips)
            for _ in range(-(-int(codec.config.context_s * codec.config.frame_rate) // n_frames)):
                runner.encode(windows, slots)
            seconds = median_seconds(lambda w=windows, s=slots: runner.encode(w, s), repeats=20)
            line = {"clips": n_clips, "frames": n_frames, "ms": 1e3 * seconds}
            line |= {"audio_s_per_s": n_clips * n_frames * frame / rate / seconds}
            yield line | (kinds(runner, windows) if codec.device.type == "cuda" else {})


def kinds(runner: EncoderRunner, windows: Sequence[np.ndarray]) -> dict[str, float]:
    """Milliseconds of a step on the GPU by what they are for, and how many kernels it has."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(_PROFILED):
            runner.encode(windows, range(len(windows)))
    total: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.device_type.name != "CUDA":
            continue
        name = event.name.lower()
        is_product = any(part in name for part in _PRODUCTS)  # first: some of them are called "splitk", too
        kind = "products" if is_product else next((kind for kind, part in _KINDS.items() if part in name), "other")
        total[f"{kind}_ms"] += event.device_time_total / 1e3 / _PROFILED
        total["kernels"] += 1 / _PROFILED
    return {name: round(value, 3) for name, value in total.items()}


if __name__ == "__main__":
    main()
