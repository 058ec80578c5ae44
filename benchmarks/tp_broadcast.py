"""What it costs two cards to agree on the rows of a step: the broadcast and the store, as a captured graph has them.

    python -m sglang_moss.benchmarks.tp_broadcast --out tp_broadcast.jsonl

One process a card. A graph holds a hundred of them one after the other, on streams of the step's priority; the time of
one is the graph's over a hundred, of the slower rank. An all-reduce of the backbone stands beside it, of which a step
has two a layer. Without cards both run over gloo, uncaptured: that proves the program and measures nothing.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing
from torch.multiprocessing.spawn import spawn

from ..clients.local_server import free_port
from .runs.exiting import exit_on_sigterm
from .runs.record import record

_REPEATED = 100  # in one graph
_RUNS = 20
_SLOTS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--running", type=int, nargs="+", default=[1, 16, 64, 128, 256], help="requests in a step")
    parser.add_argument("--n-vq", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=Path("tp_broadcast.jsonl"))
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    port = free_port()
    ranks = spawn(_rank, (args, port, answers), nprocs=args.ranks, join=False)
    lines = [answers.get() for _ in args.running]
    assert ranks is not None
    while not ranks.join():
        pass
    record(args.out, lines)


def _rank(rank: int, args: argparse.Namespace, port: int, answers: Any) -> None:
    on_cards = torch.cuda.device_count() >= args.ranks
    device = torch.device("cuda", rank) if on_cards else torch.device("cpu")
    if on_cards:
        torch.cuda.set_device(device)
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # as SGLang sets it
    distributed.init_process_group(
        "nccl" if on_cards else "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=args.ranks
    )
    try:
        for line in _lines(args, device):
            if rank == 0:
                answers.put(line)
    finally:
        distributed.destroy_process_group()


def _lines(args: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    for n in args.running:
        rows = torch.zeros(n, 1 + args.n_vq, dtype=torch.int64, device=device)
        codes = torch.zeros(_SLOTS, args.n_vq, dtype=torch.int64, device=device)
        slots = torch.arange(1, n + 1, device=device)
        hidden = torch.zeros(n, args.hidden, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
        hidden = hidden.to(device)

        def share(rows: Tensor = rows, codes: Tensor = codes, slots: Tensor = slots) -> None:
            distributed.broadcast(rows, 0)
            codes.index_copy_(0, slots, rows[:, 1:].clamp_min(0))  # as `parallel.SharedRows.share`

        def reduce(hidden: Tensor = hidden) -> None:
            distributed.all_reduce(hidden)

        yield {
            "benchmark": "tp_broadcast",
            "tp_size": args.ranks,
            "running": n,
            "captured": device.type == "cuda",
            "broadcast_us": _microseconds(share, device),
            "all_reduce_us": _microseconds(reduce, device),
        }


def _microseconds(work: Callable[[], None], device: torch.device) -> float:
    """Of one, in the slower rank."""
    run = _captured(work) if device.type == "cuda" else lambda: [work() for _ in range(_REPEATED)]
    times = []
    for _ in range(_RUNS):
        distributed.barrier()
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - started)
    slower = torch.tensor(sorted(times)[len(times) // 2] / _REPEATED * 1e6, device=device)
    distributed.all_reduce(slower, distributed.ReduceOp.MAX)
    return slower.item()


def _captured(work: Callable[[], None]) -> Callable[[], None]:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL's own threads go on asking meanwhile
        for _ in range(_REPEATED):
            work()
    return graph.replay


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    exit_on_sigterm()
    main()
