"""What a decoding step and a batch of prompts cost a server under load, read out of its log.

    python -m sglang_moss.benchmarks.log_times server.log --since 15:47:44 --until 15:48:29 --out log_times.jsonl

SGLang logs every batch of prompts, and decoding once in some steps, with how many requests run and how many rows a
second were made since the line before. So each pair of lines has a length in time, and a number of batches of prompts
between them: a load whose size goes up and down tells the two apart, by least squares. No profiler is needed; what
is not the step's or the prompts' alone, such as waiting for the host, is in the one beside which it comes. `_error` is
the standard error of a cost. The origin of a line is the log's: its date, and the commit and the GPU as they are given.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .runs.batch_log import batch_lines
from .runs.exiting import in_one_line
from .runs.record import record

_LEAST_INTERVALS = 20
_FEWEST_RUNNING = 8  # with fewer, a load begins or ends
_COSTS = ("step_ms_of_none", "step_ms_a_request", "prefill_ms")


@dataclass(frozen=True)
class Interval:
    """From one line about decoding to the next, of one scheduler.

    Attributes:
        running: requests that ran, in the mean of both.
        rows_per_s: of speech, as the second one says.
        n_prefills: batches of prompts between them.
        n_prompt_rows: rows that these prefilled.
        ended: when, as the log says it.
    """

    running: float
    rows_per_s: float
    n_prefills: int
    n_prompt_rows: int
    ended: str


@in_one_line("nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="of a server, while it had a load")
    parser.add_argument("--since", default="00:00:00", help="time of the log, as HH:MM:SS")
    parser.add_argument("--until", default="23:59:59")
    parser.add_argument("--decode-log-interval", type=int, default=40, help="the server's (%(default)s)")
    parser.add_argument("--at", type=int, nargs="+", default=[64, 100], help="requests to tell a step's time for")
    parser.add_argument("--label", default="", help="put into the line: the server's setting, and its load")
    parser.add_argument("--commit", help="of the server")
    parser.add_argument("--gpu", help="of the server")
    parser.add_argument("--out", type=Path, default=Path("log_times.jsonl"))
    args = parser.parse_args(argv)
    found = list(intervals(args.log.read_text(errors="replace").splitlines(), args.since, args.until))
    line = times(found, args.decode_log_interval)
    steps = {f"step_ms_at_{n}": line["step_ms_of_none"] + n * line["step_ms_a_request"] for n in args.at}
    origin = {"gpu": args.gpu, "commit": args.commit, "date": found[-1].ended}
    record(args.out, [{**origin, "check": "log", "label": args.label, **line, **steps}])
    return 0


def intervals(log: Iterable[str], since: str, until: str) -> Iterator[Interval]:
    """Of all pairs of lines about decoding, those whose second one is in time and whose requests are not few."""
    ranks: dict[str, tuple[float, int, int]] = {}  # by scheduler: running, prefills and their rows since its last line
    for line in batch_lines(log):
        before, n_prefills, n_rows = ranks.get(line.rank, (0.0, 0, 0))
        if not line.is_decode:
            ranks[line.rank] = before, n_prefills + 1, n_rows + int(line.facts.get("new-token", 0))
            continue
        running, rows_per_s = line.facts.get("running-req", 0.0), line.facts.get("gen throughput", 0.0)
        is_loaded = min(before, running) > _FEWEST_RUNNING and rows_per_s > 0
        if is_loaded and line.time is not None and since <= line.time <= until:
            ended = f"{line.date}T{line.time}+00:00"
            yield Interval((before + running) / 2, rows_per_s, n_prefills, n_rows, ended)
        ranks[line.rank] = running, 0, 0


def times(found: Sequence[Interval], n_steps: int) -> dict[str, Any]:
    """The costs that explain the intervals best, each of `n_steps` decoding steps.

    Raises:
        ValueError: there are too few intervals, no prompts in them, or all are alike.
    """
    if len(found) < _LEAST_INTERVALS:
        raise ValueError(f"{len(found)} intervals of a load are in this log, of at least {_LEAST_INTERVALS}")
    columns = [(one.running, one.rows_per_s, one.n_prefills, one.n_prompt_rows) for one in found]
    running, rows_per_s, n_prefills, n_rows = np.array(columns).T
    if not n_prefills.any():
        raise ValueError("no prompts were prefilled in these intervals, so that there is nothing to tell apart")
    ms = 1e3 * n_steps * running / rows_per_s
    causes = np.stack([np.full(len(ms), n_steps), n_steps * running, n_prefills], axis=1)
    costs, _, rank, _ = np.linalg.lstsq(causes, ms)
    if rank < causes.shape[1]:
        raise ValueError("all intervals are alike: a load that goes up and down is needed")
    unexplained = ms - causes @ costs
    variance = float(unexplained @ unexplained) / (len(ms) - len(costs))
    errors = np.sqrt(variance * np.diag(np.linalg.inv(causes.T @ causes)))
    told = {}
    for name, cost, error in zip(_COSTS, costs, errors, strict=True):
        told |= {name: float(cost), f"{name}_error": float(error)}
    return {
        "intervals": len(ms),
        "running": float(running.mean()),
        "prefills_a_step": float(n_prefills.mean() / n_steps),
        "rows_a_prefill": float(n_rows.sum() / n_prefills.sum()),
        **told,
        "prefill_share": float(costs[2] * n_prefills.sum() / ms.sum()),
        "interval_ms": float(ms.mean()),
        "unexplained_ms": float(np.std(unexplained)),
    }


if __name__ == "__main__":
    sys.exit(main())
