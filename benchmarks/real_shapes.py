"""The real model's shapes with random weights: starts, answers, stops; how long it takes and what it holds.

    python -m sglang_moss.benchmarks.real_shapes --golden tests/golden --out real_shapes.jsonl

8 B language model (Qwen3-8B shape), n_vq 16, codec of 1.77 G parameters. Weights are SGLang's dummy ones, so the sound
is noise: what is measured is the machinery. Lengths are forced with `ignore_eos`.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..clients.local_server import SGLANG_SERVE, LocalServer
from .golden_cases import GoldenCases
from .gpu_memory import gpu_memory_mib
from .record import record
from .shapes import write_checkpoint
from .waveforms import pcm_of_wav

_FRAMES = 125


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=Path("tests/golden"))
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 16, 32])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("real_shapes.jsonl"))
    args = parser.parse_args()
    cases = GoldenCases(args.golden)
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(Path(folder) / "model", args.golden)
        record(args.out, measure(model, cases, args.concurrency, args.dtype, args.out.with_suffix(".log")))


def measure(model: Path, cases: GoldenCases, concurrency: list[int], dtype: str, log: Path) -> list[dict[str, Any]]:
    import httpx

    began = time.perf_counter()
    flags = ["--load-format", "dummy", "--dtype", dtype]
    with LocalServer(model, extra_args=flags, start_timeout_s=500, log=log, command=SGLANG_SERVE) as server:
        lines: list[dict[str, Any]] = [
            {"check": "ready", "seconds": time.perf_counter() - began, "gpu_memory_mib": gpu_memory_mib()}
        ]
        body = cases.served_request("two_references.length")

        def ask(seed: int) -> float:
            settings = {"max_new_tokens": _FRAMES, "ignore_eos": True, "sampling_seed": seed}
            sent = time.perf_counter()
            answer = httpx.post(f"{server.url}/generate", json={**body, "sampling_params": settings}, timeout=500)
            answer.raise_for_status()
            n_samples = len(pcm_of_wav(answer.json()["text"]))
            assert n_samples == _FRAMES * 1920, n_samples
            return time.perf_counter() - sent

        ask(0)
        for n in concurrency:
            with ThreadPoolExecutor(n) as pool:
                began = time.perf_counter()
                latencies = sorted(pool.map(ask, range(n)))
                wall_s = time.perf_counter() - began
            lines.append(
                {
                    "check": "answers",
                    "concurrency": n,
                    "frames": _FRAMES,
                    "wall_s": wall_s,
                    "audio_s_per_s": n * _FRAMES * 0.08 / wall_s,
                    "latency_s_p50": latencies[n // 2],
                    "gpu_memory_mib": gpu_memory_mib(),
                }
            )
        began = time.perf_counter()
    lines.append({"check": "stopped", "seconds": time.perf_counter() - began, "gpu_memory_mib": gpu_memory_mib()})
    return lines


if __name__ == "__main__":
    main()
