"""Result lines: their origin, and what is read out of logs and other lines."""

from pathlib import Path
from typing import Any

import pytest

from sglang_moss.benchmarks import engine_ceiling, plot
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
