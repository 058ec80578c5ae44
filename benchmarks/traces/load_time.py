"""Where a loaded server's GPU time goes: decoding, prompts, and the waiting around both.

The language model's stream is cut at its decoding steps, each one launch of a graph. What runs between two of them is
prefill where a prompt was embedded, else the little that a step has outside its graph; what is left is waiting for the
host, or for nothing to do. Other streams, on which the codec decodes and encodes, run beside it. A step that is
launched kernel by kernel is not seen: graphs have to be on.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from .launches import Launch, busy_us, graphs, stretch_of

_DECODES, _PREFILLS = "_begin_step_kernel", "_embed_rows_kernel"  # of `sglang_moss.step.kernels.embedding`
_MS_A_SECOND = 1_000.0


def load_line(all_launches: Sequence[Launch]) -> dict[str, Any]:
    """The figures of one trace; those `_ms_a_second` are shares of the time, and five of them make up all of it.

    Raises:
        ValueError: the trace does not hold two decoding steps.
    """
    steps = [graph for graph in graphs(all_launches) if any(_DECODES in launch.name for launch in graph)]
    if len(steps) < 2:
        raise ValueError("the trace holds no two decoding steps: are CUDA graphs on, and is there a load?")
    stretch = stretch_of(steps, all_launches)
    starts = [launch.start_us for launch in stretch.own]
    spans = []
    for step, following in pairwise(steps):
        until_us = following[0].start_us
        between = stretch.own[bisect_left(starts, _end_us(step)) : bisect_left(starts, until_us)]
        spans.append(_Span(step, until_us, between))
    prompts = [span for span in spans if span.n_prefills]
    plain = [span for span in spans if not span.n_prefills]
    n_prefills = sum(span.n_prefills for span in prompts)
    prefill_us, waiting_us = sum(span.busy_us for span in prompts), sum(span.idle_us for span in prompts)
    graphs_beside = graphs(stretch.beside)

    def share(us: float) -> float:
        return _MS_A_SECOND * us / stretch.us

    return {
        "wall_ms": stretch.us / 1e3,
        "steps_per_s": 1e6 * len(spans) / stretch.us,
        "prefills_per_s": 1e6 * n_prefills / stretch.us,
        "graphs_beside_per_s": 1e6 * len(graphs_beside) / stretch.us,
        "decoding_ms_a_second": share(sum(span.step_us for span in spans)),
        "prefill_ms_a_second": share(prefill_us),
        "waiting_around_prefill_ms_a_second": share(waiting_us),
        "rest_of_steps_ms_a_second": share(sum(span.busy_us for span in plain)),
        "waiting_between_steps_ms_a_second": share(sum(span.idle_us for span in plain)),
        "beside_ms_a_second": share(busy_us(stretch.beside)),
        "only_beside_ms_a_second": share(busy_us(stretch.all) - busy_us(stretch.own)),
        "step_ms_p50": median(span.step_us for span in spans) / 1e3,
        "prefill_ms_mean": prefill_us / n_prefills / 1e3 if n_prefills else None,
        "waiting_ms_a_prefill": waiting_us / n_prefills / 1e3 if n_prefills else None,
        "graph_beside_ms_p50": median(map(_span_us, graphs_beside)) / 1e3 if graphs_beside else None,
    }


class _Span:
    """A decoding step, and what its stream did until the next one began."""

    def __init__(self, step: Sequence[Launch], until_us: float, between: Sequence[Launch]) -> None:
        self.step_us = _span_us(step)
        self.n_prefills = sum(_PREFILLS in launch.name for launch in between)
        self.busy_us = busy_us(between)
        self.idle_us = until_us - _end_us(step) - self.busy_us


def _span_us(graph: Sequence[Launch]) -> float:
    return _end_us(graph) - graph[0].start_us


def _end_us(graph: Sequence[Launch]) -> float:
    return max(launch.end_us for launch in graph)
