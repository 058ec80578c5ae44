"""Result lines: their origin, and what is read out of logs, traces and other lines."""

from pathlib import Path
from typing import Any

import pytest

from sglang_moss.benchmarks import engine_ceiling, plot, step_profile
from sglang_moss.benchmarks.runs.record import origin_of, read_lines, record


@pytest.mark.parametrize(
    ("argv", "benchmark", "command"),
    [
        (["/x/benchmarks/parity.py", "a"], "parity", "python -m sglang_moss.benchmarks.parity a"),
        (["/x/clients/__main__.py", "bench"], "__main__", "python -m sglang_moss.clients bench"),
        (["/usr/bin/moss-ttsd", "bench", "--stream"], "moss-ttsd", "moss-ttsd bench --stream"),
        (["moss-ttsd", "--api-key", "secret", "--out", "x"], "moss-ttsd", "moss-ttsd --api-key *** --out x"),
        (["moss-ttsd", "--api-key=secret", "--seed=1"], "moss-ttsd", "moss-ttsd --api-key=*** --seed=1"),
    ],
)
def test_a_line_names_the_command_that_made_it(argv: list[str], benchmark: str, command: str):
    assert origin_of(argv) == {"benchmark": benchmark, "command": command}


def test_lines_are_appended_with_their_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SGLANG_MOSS_COMMIT", "abc")
    out = tmp_path / "new" / "lines.jsonl"
    record(out, [{"benchmark": "serving", "x": 1}])
    record(out, [{"x": 2}])
    first, second = read_lines(out)
    assert (first["benchmark"], first["x"], first["commit"], second["x"]) == ("serving", 1, "abc", 2)
    assert {"gpu", "command", "date", "sglang", "torch"} <= first.keys()


def test_the_decode_rate_is_that_of_the_full_batch():
    def line(running: int, rate: float) -> str:
        return f"[x] Decode batch, #running-req: {running}, #token: 9, gen throughput (token/s): {rate}, #queue-req: 0"

    log = [line(4, 1.0), line(4, 100.0), "Prefill batch", line(4, 110.0), line(4, 130.0), line(3, 900.0), line(4, 2.0)]
    assert engine_ceiling.decode_rate(log, 4) == 110.0
    assert engine_ceiling.decode_rate(log, 5) is None


def test_a_step_is_read_from_a_trace():
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name"}]

    def kernel(name: str, start: float, us: float, stream: int, correlation: int) -> None:
        args = {"stream": stream, "correlation": correlation}
        events.append({"ph": "X", "cat": "kernel", "name": name, "ts": start, "dur": us, "args": args})

    for step in range(3):
        start = 1_000.0 * step
        for i in range(10):  # the graph: 10 kernels of 20 us, 10 us apart
            kernel("matmul" if i % 2 else "norm", start + 30 * i, 20.0, stream=7, correlation=step + 1)
        kernel("sample", start + 400, 50.0, stream=7, correlation=100 + step)
        for i in range(9):  # a smaller graph beside it
            kernel("codec", start + 390 + i, 1.0, stream=9, correlation=200 + step)
    step, *kernels = step_profile.step_lines(step_profile.launches({"traceEvents": events}), n_names=9)
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


def test_a_plot_has_one_curve_for_each_kind_of_answer():
    line = {"benchmark": "serving", "concurrency": 16, "audio_s_per_s": 3.0, "stream": False}
    lines = [
        line,
        line | {"concurrency": 1, "audio_s_per_s": 2.0},
        line | {"audio_s_per_s": 4.0},
        line | {"stream": True},
        line | {"stream": True, "spread": 0.5, "audio_s_per_s": 5.0},
        line | {"concurrency": None},
        {"benchmark": "engine_ceiling", "concurrency": 1, "audio_s_per_s": 9.0},
    ]
    assert plot.curves(lines, "audio_s_per_s") == {
        "whole answers": [(1, 2.0), (16, 4.0)],
        "streaming": [(16, 3.0)],
        "streaming, mixed lengths": [(16, 5.0)],
        "plain text model, same engine": [(1, 9.0)],
    }


def test_what_measures_nothing_leaves_no_file(tmp_path: Path):
    def failing() -> Any:
        raise ValueError("the server is away")
        yield {}

    with pytest.raises(ValueError, match="away"):
        record(tmp_path / "lines.jsonl", failing())
    assert list(tmp_path.iterdir()) == []
