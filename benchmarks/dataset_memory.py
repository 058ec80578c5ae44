"""Memory of whoever reads a dataset for fine-tuning, against its hours: it does not grow with them.

    python -m sglang_moss.benchmarks.dataset_memory --out dataset_memory.jsonl

Datasets of made-up codes and texts are written, dialogues of 30 s at the median, and read in another process in random
order, as training does. `resident_mib` is the highest resident memory of that process, mapped pages included, less what
it had before the dataset was opened; `anonymous_mib` is the part of it that is no mapped page.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..training.data.dataset import SpeechDataset
from ..training.data.shards import DatasetWriter, StoredExample
from ..training.data.storage import INFO_NAME, DatasetInfo
from .runs.exiting import exit_on_sigterm
from .runs.record import record

_N_VQ = 16
_FRAMES_PER_SECOND = 12.5
_N_VOICES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[10.0, 100.0, 1000.0])
    parser.add_argument("--folder", type=Path, help="for the datasets: 1.4 GB for 1,000 hours")
    parser.add_argument("--out", type=Path, default=Path("dataset_memory.jsonl"))
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read is not None:
        print(json.dumps(_read(args.read)))
        return
    exit_on_sigterm()
    record(args.out, measure(args.hours, args.folder))


def measure(all_hours: list[float], folder: Path | None) -> Iterator[dict[str, Any]]:
    """A line for each number of hours."""
    for hours in all_hours:
        with tempfile.TemporaryDirectory(dir=folder) as directory:
            began = time.perf_counter()
            write(Path(directory), hours)
            line = {"hours": hours, "write_s": time.perf_counter() - began}
            line["disk_mib"] = sum(path.stat().st_size for path in Path(directory).iterdir()) / 2**20
            command = [sys.executable, "-m", "sglang_moss.benchmarks.dataset_memory", "--read", directory]
            yield line | json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write(
    directory: Path,
    hours: float,
    codebook_size: int = 1024,
    tokenizer_sha256: str = "made up",
    count_prompt_rows: Callable[[str, list[int]], int] = lambda text, _clips: 300 + len(text) // 4,
) -> None:
    """A finished dataset of so many hours.

    Args:
        directory: to fill.
        hours: of the targets together.
        codebook_size: codes are below it.
        tokenizer_sha256: as the dataset names it.
        count_prompt_rows: rows of the prompt of a text and of two clips, of which the frames are given.
    """
    draw = np.random.default_rng(0)
    writer = DatasetWriter(directory)
    codes = draw.integers(0, codebook_size, (round(3600 * _FRAMES_PER_SECOND), _N_VQ), dtype=np.uint16)
    clip_frames = draw.integers(60, 130, _N_VOICES).tolist()
    for voice, n_frames in enumerate(clip_frames):
        writer.add_reference(np.roll(codes, voice, axis=0)[:n_frames])
    while writer.n_frames < hours * 3600 * _FRAMES_PER_SECOND:
        n_frames = int(np.clip(draw.lognormal(np.log(30), 0.9), 2, 600) * _FRAMES_PER_SECOND)
        start = int(draw.integers(len(codes) - n_frames))
        text = "[S1] " + "What was said there, more or less. " * (n_frames // 25 + 1)
        references = draw.integers(0, _N_VOICES, 2).tolist()
        writer.add(
            StoredExample(
                id=f"talk-{writer.n_examples:08}",
                fields={"text": text},
                codes=codes[start : start + n_frames],
                references=references,
                n_prompt_rows=count_prompt_rows(text, [clip_frames[voice] for voice in references]),
                n_speakers=2,
                audio_sha256=bytes(32),
            )
        )
    shard_rows, reference_rows = writer.close()
    info = DatasetInfo(
        codec_sha256="made up",
        n_vq=_N_VQ,
        sampling_rate=24_000,
        frame_samples=1920,
        codebook_size=codebook_size,
        tokenizer_sha256=tokenizer_sha256,
        template="ttsd",
        normalizer="none",
        n_examples=writer.n_examples,
        n_frames=writer.n_frames,
        n_rejected=0,
        n_given_codes=0,
        shard_rows=shard_rows,
        reference_rows=reference_rows,
    )
    (directory / INFO_NAME).write_bytes(info.to_json())


def _read(directory: Path) -> dict[str, Any]:
    """Read in random order and look at every code; memory is that of this process."""
    before = memory_mib("self")
    began = time.perf_counter()
    dataset = SpeechDataset(directory)
    open_s = time.perf_counter() - began
    order = np.random.default_rng(1).permutation(len(dataset))
    most = dict.fromkeys(before, 0.0)
    total = 0
    began = time.perf_counter()
    for n, i in enumerate(order):
        example = dataset[int(i)]
        total += int(example.codes.sum()) + sum(int(r.sum()) for r in example.references or () if r is not None)
        if n % 100 == 0 or n == len(order) - 1:
            most = {name: max(most[name], value) for name, value in memory_mib("self").items()}
    read_s = time.perf_counter() - began
    assert total > 0
    return {
        "examples": len(dataset),
        "open_ms": 1e3 * open_s,
        "us_per_example": 1e6 * read_s / len(order),
        "resident_mib": most["resident"] - before["resident"],
        "anonymous_mib": most["anonymous"] - before["anonymous"],
        "process_mib": most["resident"],
    }


def memory_mib(process: int | str) -> dict[str, float]:
    """Resident memory of a process, and the part of it that is no mapped page; `self` is this one."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    names = {"resident": "VmRSS", "anonymous": "RssAnon"}
    return {name: int(lines[field].split()[0]) / 1024 for name, field in names.items()}


if __name__ == "__main__":
    main()
