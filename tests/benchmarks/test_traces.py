"""What is read out of the traces of SGLang's profiler."""

from typing import Any

import pytest

from sglang_moss.benchmarks import step_profile
from sglang_moss.benchmarks.traces.launches import launches
from sglang_moss.benchmarks.traces.load_time import load_line


class Trace:
    """A trace that is being made; times in microseconds."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {"traceEvents": [{"ph": "M", "name": "process_name"}]}

    def kernel(self, name: str, start: float, us: float, stream: int, correlation: int) -> None:
        args = {"stream": stream, "correlation": correlation}
        event = {"ph": "X", "cat": "kernel", "name": name, "ts": start, "dur": us, "args": args}
        self.content["traceEvents"].append(event)

    def graph(self, names: list[str], start: float, us: float, stream: int, correlation: int) -> None:
        """One launch of kernels that take `us` each, one after the other."""
        for i, name in enumerate(names):
            self.kernel(name, start + us * i, us, stream, correlation)


def test_a_step_is_read_from_a_trace():
    trace = Trace()
    for step in range(3):
        start = 1_000.0 * step
        for i in range(10):  # the graph: 10 kernels of 20 us, 10 us apart
            trace.kernel("matmul" if i % 2 else "norm", start + 30 * i, 20.0, stream=7, correlation=step + 1)
        trace.kernel("sample", start + 400, 50.0, stream=7, correlation=100 + step)
        for i in range(9):  # a smaller graph beside it
            trace.kernel("codec", start + 390 + i, 1.0, stream=9, correlation=200 + step)
    step, *kernels = step_profile.step_lines(launches(trace.content), n_names=9)
    assert (step["n_steps"], step["step_us"], step["launches"], step["graph_kernels"]) == (2, 1_000.0, 11.0, 10.0)
    assert (step["gpu_us"], step["idle_us"], step["graph_us"]) == (250.0, 750.0, 290.0)
    assert (step["launches_beside"], step["gpu_us_beside"], step["idle_us_of_all_streams"]) == (9.0, 9.0, 741.0)
    found = {(k["where"], k["name"]): (k["launches"], k["gpu_us"]) for k in kernels}
    assert found == {
        ("step", "matmul"): (5.0, 100.0),
        ("step", "norm"): (5.0, 100.0),
        ("step", "sample"): (1.0, 50.0),
        ("beside", "codec"): (9.0, 9.0),
    }


def test_a_trace_without_steps_is_an_error():
    with pytest.raises(ValueError, match="no two launches of a decode graph"):
        list(step_profile.step_lines([], 1))


def test_the_time_of_a_load_is_divided_among_steps_prompts_and_waiting():
    trace = Trace()
    step = ["_begin_step_kernel", *["matmul"] * 9]
    for i, start in enumerate((0.0, 2_000.0, 5_000.0)):
        trace.graph(step, start, 100.0, stream=7, correlation=1 + i)  # a millisecond
    trace.kernel("sample", 1_000.0, 200.0, stream=7, correlation=10)  # then 800 us of waiting
    trace.kernel("_embed_rows_kernel", 3_100.0, 100.0, stream=7, correlation=11)
    trace.graph(["matmul"] * 10, 3_200.0, 100.0, stream=7, correlation=12)  # then 800 us of waiting
    trace.graph(["codec"] * 8, 1_500.0, 100.0, stream=9, correlation=13)  # 500 us of it while the first stream waits
    line = load_line(launches(trace.content))
    assert (line["wall_ms"], line["steps_per_s"], line["prefills_per_s"]) == (5.0, 400.0, 200.0)
    parts = {
        "decoding": 400.0,
        "prefill": 220.0,
        "waiting_around_prefill": 180.0,
        "rest_of_steps": 40.0,
        "waiting_between_steps": 160.0,
    }
    assert {name: line[f"{name}_ms_a_second"] for name in parts} == pytest.approx(parts)
    assert sum(line[f"{name}_ms_a_second"] for name in parts) == pytest.approx(1_000.0)
    assert (line["beside_ms_a_second"], line["only_beside_ms_a_second"]) == pytest.approx((160.0, 100.0))
    assert (line["step_ms_p50"], line["prefill_ms_mean"], line["waiting_ms_a_prefill"]) == (1.0, 1.1, 0.9)
    assert (line["graphs_beside_per_s"], line["graph_beside_ms_p50"]) == (200.0, 0.8)


def test_a_load_without_decoding_steps_is_an_error():
    with pytest.raises(ValueError, match="no two decoding steps"):
        load_line([])
