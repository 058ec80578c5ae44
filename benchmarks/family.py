"""Speed and memory of every model of the family at its real shape, with random weights: a server each, one table.

    python -m sglang_moss.benchmarks.family --folder family --out family.jsonl

One GPU, and disk for one checkpoint at a time (24 GB). A line `family` says what was served and how long its start
took; those after it are `serving`'s, by the workload that the model takes.
"""

import argparse
import os
import secrets
import shutil
import sys
import time
from pathlib import Path

from ..clients.local_server import SGLANG_SERVE, LocalServer, ServerFailed
from .loads.workloads import FAMILY_WORKLOADS
from .random_checkpoint import write_weights
from .runs.exiting import exit_on_sigterm
from .runs.golden import add_golden_argument
from .runs.gpu_memory import gpu_memory_mib
from .runs.record import record
from .serving import ADMIN_KEY_VARIABLE
from .serving import main as measure_serving
from .shapes.real_shapes import SHAPES, write_checkpoint

_DIALOGUE = "dialogue"


def main() -> int:
    """Run; exit status 1 if a server did not start or a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("family.jsonl"))
    parser.add_argument("--profiles", nargs="+", choices=SHAPES, default=["voice", "tts", "sound"])
    parser.add_argument("--n-vq", type=int, help="codebooks, other than the known ones")
    parser.add_argument("--concurrency", nargs="+", default=["1", "16", "64", "128"])
    parser.add_argument("--rounds", default="2", help="requests of each client (%(default)s)")
    parser.add_argument("--streams-only", action="store_true", help="no whole answers")
    add_golden_argument(parser)
    args = parser.parse_args()
    all_well = True
    for profile in args.profiles:
        made = args.folder / profile
        shutil.rmtree(made, ignore_errors=True)
        args.folder.mkdir(parents=True, exist_ok=True)
        write_weights(write_checkpoint(made, args.golden, profile, args.n_vq))
        try:
            all_well &= measure(profile, made, args)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return 0 if all_well else 1


def measure(profile: str, made: Path, args: argparse.Namespace) -> bool:
    """One model on a server of its own: whole answers, unless left out, then streams. Whether nothing failed."""
    key = os.environ[ADMIN_KEY_VARIABLE] = secrets.token_hex()  # the prefix cache is flushed between the cases
    workload = next((w.name for w in FAMILY_WORKLOADS.values() if w.profile == profile), _DIALOGUE)
    server = LocalServer(
        made, extra_args=["--admin-api-key", key], log=args.folder / f"{profile}.log", command=SGLANG_SERVE
    )
    began = time.monotonic()
    all_well = True
    try:
        with server:
            language, n_vq = SHAPES[profile]
            sizes = {"n_vq": args.n_vq or n_vq, "hidden_size": language["hidden_size"]}
            line = {"benchmark": "family", "profile": profile, **sizes, "ready_s": time.monotonic() - began}
            record(args.out, [{**line, "gpu_memory_mib": gpu_memory_mib()}])
            common = ["--url", server.url, "--workload", workload, "--out", str(args.out), "--rounds", args.rounds]
            for stream in [["--stream"]] if args.streams_only else [[], ["--stream"]]:
                all_well &= measure_serving([*common, "--concurrency", *args.concurrency, *stream]) == 0
    except ServerFailed as failed:
        print(failed, file=sys.stderr, flush=True)
        return False
    return all_well


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
