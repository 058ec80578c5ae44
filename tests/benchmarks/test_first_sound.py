"""The arithmetic of first sounds: parts that add up, and times that cannot be compared."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.benchmarks.loads.first_sound_parts import PARTS, figures, parts_ms, table
from sglang_moss.clients import UnusableAnswer
from sglang_moss.request.first_sound import MARKS

steps = st.lists(st.floats(0, 10), min_size=len(PARTS), max_size=len(PARTS))


def parts_of(seconds: list[float], start: float = 1000.0) -> dict[str, float]:
    """The parts of a stream that spends so many seconds in each."""
    times = [start]
    for step in seconds:
        times.append(times[-1] + step)
    sent, *marks, arrived, heard = times
    return parts_ms(sent, dict(zip(MARKS, marks, strict=True)), arrived, heard)


@given(seconds=steps)
def test_each_part_is_the_time_between_two_marks_and_all_add_up_to_the_first_audio(seconds: list[float]):
    parts = parts_of(seconds)
    assert list(parts.values()) == pytest.approx([1e3 * step for step in seconds], abs=1e-6)
    assert sum(parts.values()) == pytest.approx(1e3 * sum(seconds), abs=1e-6)


@given(streams=st.lists(steps, min_size=1, max_size=5))
def test_means_add_up_and_what_medians_leave_is_told(streams: list[list[float]]):
    found = figures([parts_of(seconds) for seconds in streams])
    assert sum(found["parts_ms_mean"].values()) == pytest.approx(found["first_audio_ms_mean"], abs=1e-6)
    told = sum(found["parts_ms_p50"].values()) + found["remainder_ms_p50"]
    assert told == pytest.approx(found["first_audio_ms_p50"], abs=1e-6)


def test_medians_are_those_of_each_part():
    slow_prefill, slow_codec = [0.001] * len(PARTS), [0.001] * len(PARTS)
    slow_prefill[list(PARTS).index("first_row")] = 0.5
    slow_codec[list(PARTS).index("decoded")] = 0.7
    found = figures([parts_of(seconds) for seconds in ([0.001] * len(PARTS), slow_prefill, slow_codec)])
    assert list(found["parts_ms_p50"].values()) == pytest.approx([1.0] * len(PARTS))
    assert found["first_audio_ms_p50"] == pytest.approx(499 + len(PARTS))
    assert found["remainder_ms_p50"] == pytest.approx(499)


@pytest.mark.parametrize("name", ["received", "codec", "answered", "arrived"])
def test_times_of_another_clock_are_refused(name: str):
    seconds = [0.001] * len(PARTS)
    seconds[list(PARTS).index(name)] = -0.5
    with pytest.raises(UnusableAnswer, match=f"times go backwards at {name}: "):
        parts_of(seconds)


def test_a_mark_that_is_missing_is_named():
    with pytest.raises(UnusableAnswer, match="tells no prefill, left: "):
        parts_ms(0.0, {name: 1.0 for name in MARKS if name not in ("prefill", "left")}, 2.0, 3.0)


def test_the_table_has_a_row_for_each_part_and_a_column_for_each_case_with_figures():
    def line(voices: str, *streams: list[float]) -> dict[str, Any]:
        found = figures([parts_of(seconds) for seconds in streams])
        return {"voices": voices, "concurrency": 16, "first_event_frames": 4.0, **found}

    lines = [line("known", [0.002] * len(PARTS)), line("new", [0.003] * len(PARTS)), line("new")]
    rows = [row.split() for row in table(lines).splitlines()]
    assert rows[0] == ["voices", "known", "new"]
    assert rows[1][-2:] == ["16", "16"]
    assert rows[2][-2:] == ["4", "4"]
    assert [row[-2:] for row in rows[3:-2]] == [["2.0", "3.0"]] * len(PARTS)
    assert [row[-2:] for row in rows[-2:]] == [["0.0", "0.0"], [f"{2.0 * len(PARTS)}", f"{3.0 * len(PARTS)}"]]


def test_the_clocks_of_server_and_client_are_one():
    names = {time.get_clock_info(name).implementation for name in ("monotonic", "perf_counter")}
    assert names == {"clock_gettime(CLOCK_MONOTONIC)"}
