"""Where the GPU's time goes while listeners are served: decoding, prompts, waiting, and the codec beside them.

    moss-ttsd bench --listeners --first 448 --most 448 &
    MOSS_ADMIN_API_KEY=KEY python -m sglang_moss.benchmarks.load_profile --after 40 --out load_profile.jsonl

Records what a server does under whatever load it has, from `--after` seconds on. The load's own figures count for
nothing then: while the trace is written, the server stands still. `traces/load_time.py` says what the figures mean.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .loads import loops
from .runs.exiting import exit_on_sigterm, in_one_line
from .runs.record import record
from .serving import add_connection_arguments
from .traces.launches import launches
from .traces.load_time import load_line
from .traces.recording import recorded


@in_one_line("nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_connection_arguments(parser)
    parser.add_argument("--after", type=float, default=0.0, help="seconds to wait first (%(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="of the language model, to record (%(default)s)")
    parser.add_argument("--label", default="", help="put into the line: how the server was started, and its load")
    parser.add_argument("--trace-dir", type=Path, help="keep the trace there; a folder that the server can write")
    parser.add_argument("--out", type=Path, default=Path("load_profile.jsonl"))
    args = parser.parse_args(argv)
    record(args.out, lines(args))
    return 0


def lines(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line."""
    time.sleep(args.after)
    with tempfile.TemporaryDirectory() as folder:
        trace = loops.run(recorded(args, args.trace_dir or Path(folder), args.steps))
        yield {"check": "load", "label": args.label, **load_line(launches(trace))}


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
