"""How fast recordings become a dataset: hours of audio an hour, against the codec alone, and that codes are steady.

    python -m sglang_moss.benchmarks.prepare --out prepare.jsonl

The codec has its real shape and random weights, unless `--codec-path` names one; the recordings are made up, dialogues
of 30 s at the median, as WAV at the codec's rate and as what people have: 48 kHz FLAC in stereo, 44.1 kHz MP3, 16 kHz
WAV. `read` is reading on one core; `steady` compares codes of clips encoded alone with those of the same clips beside
others, and with the server's own runner; `codec` is what encoding does by itself on one device; `prepare` is `moss-ttsd
data prepare` as a whole. `steady` and `codec` need neither PyAV nor pyarrow.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.decode.clip_encoder import ClipEncoder

from ..training.data.checkpoint import Checkpoint
from ..training.data.encoders import SLOTS, SteadyRunner
from .loads.synthetic_voice import RATE, synthetic_speech
from .random_checkpoint import write_codec
from .runs.golden import add_golden_argument
from .runs.record import record

_FORMATS = {  # suffix, rate, channels
    "wav": (("wav", 24_000, 1),),
    "mixed": (("flac", 48_000, 2), ("mp3", 44_100, 1), ("wav", 16_000, 1)),
}
_MEDIAN_S, _SPREAD, _SHORTEST_S, _LONGEST_S = 30.0, 0.9, 2.0, 600.0
_READ_S, _FRAME_SAMPLES = (30.3, 300.0), 1920
_STEADY_FRAMES = (5, 64, 70, 200, 33, 8, 1, 129, 64, 17, 300, 12)
_BLOCK_S = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=6.0, help="of targets")
    parser.add_argument("--made-hours", type=float, default=1.0, help="of different recordings among them")
    parser.add_argument("--formats", nargs="+", default=list(_FORMATS), choices=list(_FORMATS))
    parser.add_argument("--decoders", type=int, nargs="+", default=[0], help="processes that read; 0: by the machine")
    parser.add_argument("--devices", nargs="+", default=None)
    add_golden_argument(parser)
    parser.add_argument("--codec-path", type=Path, help="a codec to take as it is, such as tests/golden/codec")
    parser.add_argument("--parts", nargs="+", default=["read", "steady", "codec", "prepare"])
    parser.add_argument("--folder", type=Path, help="for the codec, 7 GB, and the recordings")
    parser.add_argument("--out", type=Path, default=Path("prepare.jsonl"))
    args = parser.parse_args()
    n_gpus = torch.cuda.device_count()
    devices = args.devices or [f"cuda:{i}" for i in range(n_gpus)] or ["cpu"]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        if args.codec_path is None:
            model: dict[str, Any] = {"model_path": write_codec(folder / "fused", args.golden)}
        else:
            model = {"model_path": args.golden / "ttsd", "codec_path": args.codec_path}
        if "read" in args.parts:
            record(args.out, measure_reading(folder))
        if {"steady", "codec"} & set(args.parts):
            checkpoint = Checkpoint.open(**model)
            device = torch.device(devices[0])
            codec = checkpoint.codec.load(device)
            if "steady" in args.parts:
                record(args.out, measure_steadiness(codec, checkpoint.tokens.n_vq))
            if "codec" in args.parts:
                record(args.out, measure_codec(codec, checkpoint.tokens.n_vq, args.made_hours))
            del codec
            if device.type == "cuda":
                torch.cuda.empty_cache()
        if "prepare" in args.parts:
            for form in args.formats:
                jsonl = write_recordings(folder / form, form, args.made_hours, args.hours)
                for n_decoders in args.decoders:
                    record(args.out, measure_prepare(model, jsonl, folder / "out", form, devices, n_decoders))


def measure_reading(folder: Path) -> Iterator[dict[str, Any]]:
    """Files to waveforms, in seconds of one core: what the server makes of a clip, and pieces of a longer one."""
    from ..training.data.clips import decode_clip
    from ..training.data.messages import ClipTask

    for suffix, rate, n_channels in [kind for kinds in _FORMATS.values() for kind in kinds]:
        for seconds in _READ_S:
            clip = _write_recording((folder, suffix, rate, n_channels, seconds, 0))
            task = ClipTask(clip, False, int(2 * _LONGEST_S) * RATE, folder / "waveform")
            decode_clip(task, RATE, _FRAME_SAMPLES)
            began = time.process_time()
            decode_clip(task, RATE, _FRAME_SAMPLES)
            took = time.process_time() - began
            line: dict[str, Any] = {"check": "read", "suffix": suffix, "rate": rate, "channels": n_channels}
            yield line | {"audio_s": seconds, "core_s": took, "x_real_time": seconds / took}


def measure_steadiness(codec: Any, n_vq: int) -> Iterator[dict[str, Any]]:
    """Frames whose codes are others beside other clips; and by the server's runner, whose steps have other shapes."""
    on_gpu = codec.device.type == "cuda"
    clips = [synthetic_speech(n * codec.config.frame_samples, seed) for seed, n in enumerate(_STEADY_FRAMES)]
    runner = SteadyRunner(EncoderRunner(codec, n_vq, n_slots=SLOTS if on_gpu else 1), whole_batches=on_gpu)
    together = _encode(ClipEncoder(runner, spare_slot=False), clips)
    alone = [_encode(ClipEncoder(runner, spare_slot=False), [clip])[0] for clip in clips]
    server = _encode(ClipEncoder(EncoderRunner(codec, n_vq)), clips)
    yield {
        "check": "steady",
        "frames": sum(_STEADY_FRAMES),
        "frames_that_differ_alone": _differing(together, alone),
        "frames_that_differ_from_the_server": _differing(together, server),
    }


def measure_codec(codec: Any, n_vq: int, hours: float) -> Iterator[dict[str, Any]]:
    """Encoding alone: waveforms in memory, sorted by length, on one device."""
    on_gpu = codec.device.type == "cuda"
    frame = codec.config.frame_samples
    one = synthetic_speech(int(_LONGEST_S) * codec.config.sampling_rate, 0)
    clips = [one[: int(s * codec.config.sampling_rate) // frame * frame] for s in sorted(_lengths(hours))]
    runner = SteadyRunner(EncoderRunner(codec, n_vq, n_slots=SLOTS if on_gpu else 1), whole_batches=on_gpu)
    _encode(ClipEncoder(runner, spare_slot=False), clips[:SLOTS])
    began = time.perf_counter()
    _encode(ClipEncoder(runner, spare_slot=False), clips)
    seconds = time.perf_counter() - began
    audio_s = sum(map(len, clips)) / codec.config.sampling_rate
    yield {
        "check": "codec",
        "clips": len(clips),
        "audio_s": audio_s,
        "wall_s": seconds,
        "x_real_time": audio_s / seconds,
    }


def measure_prepare(
    model: dict[str, Any], jsonl: Path, out: Path, form: str, devices: list[str], n_decoders: int
) -> Iterator[dict[str, Any]]:
    """One run from the beginning."""
    from ..training.data.prepare import prepare

    summary = prepare(
        jsonl,
        output_dir=out,
        **model,
        devices=devices,
        n_decoders=n_decoders or None,
        max_pace=1e9,
        overwrite=True,
    )
    figures = asdict(summary)
    del figures["output_dir"], figures["was_finished"]
    yield {
        "check": "prepare",
        "formats": form,
        "n_devices": len(devices),
        "decoders": n_decoders,
        "cores": len(os.sched_getaffinity(0)),
        **figures,
    }


def write_recordings(folder: Path, form: str, made_hours: float, hours: float) -> Path:
    """JSONL and its recordings: targets come again until there are `hours` of them."""
    folder.mkdir()
    lengths = _lengths(made_hours)
    with ProcessPoolExecutor() as pool:
        tasks = [(folder, *_FORMATS[form][i % len(_FORMATS[form])], s, i) for i, s in enumerate(lengths)]
        clips = list(pool.map(_write_recording, tasks))
    path = folder / "talks.jsonl"
    with path.open("w") as file:
        n = 0
        left_s = hours * 3600
        while left_s > 0:
            clip, seconds = clips[n % len(clips)], lengths[n % len(clips)]
            text = "[S1] Hello. [S2] What a day."
            file.write(json.dumps({"id": f"{n}", "audio": str(clip), "text": text}) + "\n")
            n, left_s = n + 1, left_s - seconds
    return path


def _write_recording(task: tuple[Path, str, int, int, float, int]) -> Path:
    folder, suffix, rate, n_channels, seconds, seed = task
    path = folder / f"{seed}.{suffix}"
    one = synthetic_speech(int(min(seconds, 20.0) * RATE), seed)
    samples = np.resize(one, int(seconds * rate))  # at another rate it sounds lower or higher
    with soundfile.SoundFile(path, "w", rate, n_channels) as file:
        for start in range(0, len(samples), _BLOCK_S * rate):
            file.write(np.repeat(samples[start : start + _BLOCK_S * rate, None], n_channels, axis=1))
    return path


def _lengths(hours: float) -> list[float]:
    """Seconds of dialogues that last so long together."""
    draw = np.random.default_rng(0)
    lengths: list[float] = []
    while sum(lengths) < hours * 3600:
        drawn = float(np.clip(draw.lognormal(np.log(_MEDIAN_S), _SPREAD), _SHORTEST_S, _LONGEST_S))
        lengths.append(min(drawn, max(_SHORTEST_S, hours * 3600 - sum(lengths))))
    return lengths


def _encode(encoder: ClipEncoder, clips: list[np.ndarray]) -> list[np.ndarray]:
    codes: dict[Any, np.ndarray] = {}
    for i, clip in enumerate(clips):
        encoder.open(i, [clip])
    while encoder.step(lambda job, found: codes.update({job: found[0] if found else np.empty(0)})):
        pass
    return [codes[i] for i in range(len(clips))]


def _differing(some: list[np.ndarray], others: list[np.ndarray]) -> int:
    return sum(int((a != b).any(axis=1).sum()) for a, b in zip(some, others, strict=True))


if __name__ == "__main__":
    main()
