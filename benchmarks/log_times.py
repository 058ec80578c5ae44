"""What a decoding step and a batch of prompts cost a server under load, read out of its log.

    python -m sglang_moss.benchmarks.log_times server.log --since 15:47:44 --until 15:48:29 --out log_times.jsonl

SGLang logs every batch of prompts, and decoding once in some steps, with how many requests run and how many rows a
second were made since the line before. So each pair of lines has a length in time, and a number of batches of prompts
between them: a load whose size goes up and down tells the two apart, by least squares. No profiler is needed; what
is not the step's or the prompts' alone, such as waiting for the host, is in the one beside which it comes.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .runs.record import record

_LEAST_INTERVALS = 20
_FEWEST_RUNNING = 8  # with fewer, a load begins or ends
_LINE = re.compile(r"\[\d{4}-\d\d-\d\d (?P<time>\d\d:\d\d:\d\d)[^\]]*\] (?P<kind>Decode|Prefill) batch, (?P<facts>.*)")
_FACT = re.compile(r"#?(?P<name>[\w -]+?)(?: \(token/s\))?: (?P<value>[\d.]+)")


@dataclass(frozen=True)
class Interval:
    """From one line about decoding to the next.

    Attributes:
        running: requests that ran, in the mean of both.
        rows_per_s: of speech, as the second one says.
        n_prefills: batches of prompts between them.
        n_prompt_rows: rows that these prefilled.
    """

    running: float
    rows_per_s: float
    n_prefills: int
    n_prompt_rows: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="of a server, while it had a load")
    parser.add_argument("--since", default="00:00:00", help="time of the log, as HH:MM:SS")
    parser.add_argument("--until", default="23:59:59")
    parser.add_argument("--decode-log-interval", type=int, default=40, help="the server's (%(default)s)")
    parser.add_argument("--at", type=int, nargs="+", default=[64, 100], help="requests to tell a step's time for")
    parser.add_argument("--label", default="", help="put into the line: the server's setting and commit, and its load")
    parser.add_argument("--out", type=Path, default=Path("log_times.jsonl"))
    args = parser.parse_args()
    try:
        line = times(intervals(args.log.read_text().splitlines(), args.since, args.until), args.decode_log_interval)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    of_steps = {f"step_ms_at_{n}": line["step_ms_of_none"] + n * line["step_ms_a_request"] for n in args.at}
    record(args.out, [{"check": "log", "label": args.label, **line, **of_steps}])


def intervals(log: Iterable[str], since: str, until: str) -> Iterator[Interval]:
    """Of all pairs of lines about decoding, those whose second one is in time and whose requests are not few."""
    before, n_prefills, n_rows = 0.0, 0, 0
    for match in filter(None, map(_LINE.search, log)):
        facts = {found["name"].strip(): float(found["value"]) for found in _FACT.finditer(match["facts"])}
        if match["kind"] == "Prefill":
            n_prefills, n_rows = n_prefills + 1, n_rows + int(facts["new-token"])
            continue
        running = facts["running-req"]
        if min(before, running) > _FEWEST_RUNNING and since <= match["time"] <= until:
            yield Interval((before + running) / 2, facts["gen throughput"], n_prefills, n_rows)
        before, n_prefills, n_rows = running, 0, 0


def times(found: Iterable[Interval], n_steps: int) -> dict[str, Any]:
    """The costs that explain the intervals best, each of `n_steps` decoding steps.

    Raises:
        ValueError: there are too few intervals, or all are alike.
    """
    all_of_them = list(found)
    if len(all_of_them) < _LEAST_INTERVALS:
        raise ValueError(
            f"{len(all_of_them)} intervals of a load are in this log, at least {_LEAST_INTERVALS} are needed"
        )
    running, rows_per_s, n_prefills, n_rows = np.array([list(vars(one).values()) for one in all_of_them]).T
    ms = 1e3 * n_steps * running / rows_per_s
    causes = np.stack([np.full(len(ms), n_steps), n_steps * running, n_prefills], axis=1)
    (of_none, a_request, a_prefill), _, rank, _ = np.linalg.lstsq(causes, ms)
    if rank < causes.shape[1]:
        raise ValueError("all intervals are alike: a load that goes up and down is needed")
    return {
        "intervals": len(ms),
        "running": float(running.mean()),
        "prefills_a_step": float(n_prefills.mean() / n_steps),
        "rows_a_prefill": float(n_rows.sum() / n_prefills.sum()),
        "step_ms_of_none": float(of_none),
        "step_ms_a_request": float(a_request),
        "prefill_ms": float(a_prefill),
        "prefill_share": float(a_prefill * n_prefills.sum() / ms.sum()),
        "interval_ms": float(ms.mean()),
        "unexplained_ms": float(np.std(ms - causes @ (of_none, a_request, a_prefill))),
    }


if __name__ == "__main__":
    sys.exit(main())
