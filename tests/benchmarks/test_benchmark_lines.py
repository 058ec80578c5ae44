"""Result lines: their origin, and what is read out of logs and other lines."""

from pathlib import Path
from typing import Any

import pytest

from sglang_moss.benchmarks import engine_ceiling, log_times, plot
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


def test_costs_of_steps_and_prompts_are_read_out_of_a_log(tmp_path):
    """Two schedulers with 20 to 60 requests, whose steps take 5 ms and 0.05 for each, and each batch of prompts 20."""
    log = ["[2026-01-01 12:00:00] server_args={}"]
    for rank in (" DP0", " DP1"):
        log += [decoding(5, 100.0, rank), decoding(20, 100.0, rank)]
    for i in range(20, 60):
        running, n_prefills = i + 0.5, i % 3
        for rank in (" DP0", " DP1"):
            log += n_prefills * [f"[2026-01-01 12:00:01{rank}] {PREFILL}"]
        for rank in (" DP0", " DP1"):
            rate = 1e3 * 40 * running / (40 * (5 + 0.05 * running) + 20 * n_prefills)
            log.append(decoding(i + 1, rate, rank))
    log.append(decoding(60, 0.0, " DP0"))  # SGLang has counted nothing
    log.append(decoding(60, 1.0, " DP1", time="12:30:00"))  # not in time
    log.append(decoding(60, 1.0, " DP1")[:60])  # cut off
    found = list(log_times.intervals(log, "12:00:00", "12:10:00"))
    assert len(found) == 80
    costs = log_times.times(found, n_steps=40)
    assert (costs["step_ms_of_none"], costs["step_ms_a_request"]) == pytest.approx((5.0, 0.05))
    assert (costs["prefill_ms"], costs["rows_a_prefill"]) == pytest.approx((20.0, 370.0))
    assert costs["prefill_share"] == pytest.approx(20 * 41 / (costs["interval_ms"] * 40))
    assert (costs["prefill_ms_error"], costs["unexplained_ms"]) == pytest.approx((0.0, 0.0), abs=1e-6)
    (tmp_path / "log").write_text("\n".join(log))
    command = [str(tmp_path / "log"), "--until", "12:10:00", "--commit", "abc", "--out", str(tmp_path / "out")]
    assert log_times.main(command) == 0
    (line,) = read_lines(tmp_path / "out")
    assert (line["commit"], line["date"]) == ("abc", "2026-01-01T12:00:02+00:00")
    assert line["step_ms_at_100"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("n", "n_prefills", "said"),
    [(5, 1, "5 intervals of a load"), (30, 0, "no prompts were prefilled"), (30, 1, "all intervals are alike")],
)
def test_a_log_that_tells_no_costs_is_an_error(n: int, n_prefills: int, said: str):
    with pytest.raises(ValueError, match=said):
        log_times.times([log_times.Interval(20.0, 100.0, n_prefills, 370, "")] * n, 40)


PREFILL = "Prefill batch, #new-seq: 1, #new-token: 370, #cached-token: 411, #running-req: 9, cuda graph: True"


def decoding(running: int, rows_per_s: float, rank: str, time: str = "12:00:02") -> str:
    facts = f"#running-req: {running}, #token: 9, token usage: 0.1, cuda graph: True, gen throughput (token/s): "
    return f"[2026-01-01 {time}{rank}] Decode batch, {facts}{rows_per_s}, #queue-req: 0"
