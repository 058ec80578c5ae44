"""One long request: does a step at the end cost what one at the start costs, and does memory stay where it is?

    python -m sglang_moss.benchmarks.long_session --url http://127.0.0.1:30000 --frames 45000 --out long.jsonl

Streams one request of a forced length, and writes a line for each tenth of it: frames a second, and the memory of the
server's processes and of the GPU. The server needs a `--context-length` that holds the frames and the prompt. Its own
attention grows with the context: `attention_bytes` is what a step must read of the KV cache at the end of the tenth.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..clients import ClientError, MossClient
from .loads.workloads import FRAMES_PER_SECOND, WORKLOADS, RequestMaker, script
from .runs.gpu_memory import gpu_memory_mib
from .runs.host_memory import resident_mib, server_of
from .runs.record import record

_PARTS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:30000", help="of the server (%(default)s)")
    parser.add_argument("--frames", type=int, default=45_000, help="of 80 ms (%(default)s)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for more of the answer")
    parser.add_argument("--kv-bytes-per-row", type=int, default=147_456, help="of the language model (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("long_session.jsonl"))
    args = parser.parse_args()
    try:
        record(args.out, measure(args))
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for each tenth of the request."""
    server = server_of(args.url)
    workload = WORKLOADS["dialogue"]
    voices = RequestMaker(workload).voices()
    marks = [args.frames * (part + 1) // _PARTS for part in range(_PARTS)]
    seconds = args.frames / FRAMES_PER_SECOND
    began, last, n_samples = time.perf_counter(), None, 0
    with MossClient(args.url, timeout_s=args.timeout) as client:
        for chunk in client.stream(script(workload, 0), voices, max_seconds=seconds, exact_length=True, seed=0):
            now, frames = time.perf_counter(), chunk.meta["audio_frames"]
            n_samples += len(chunk.pcm) // 2
            last = last or (now, frames)  # the clock starts with the first audio
            if frames >= marks[0]:
                yield {
                    "frames": frames,
                    "audio_seconds": n_samples / chunk.sample_rate,
                    "seconds": now - began,
                    "frames_per_s": (frames - last[1]) / (now - last[0]),
                    "ms_per_frame": 1e3 * (now - last[0]) / (frames - last[1]),
                    "attention_bytes": frames * args.kv_bytes_per_row,
                    "host_memory_mib": resident_mib(server),
                    "gpu_memory_mib": gpu_memory_mib(),
                }
                last = now, frames
                marks = [mark for mark in marks if mark > frames] or [sys.maxsize]


if __name__ == "__main__":
    sys.exit(main())
