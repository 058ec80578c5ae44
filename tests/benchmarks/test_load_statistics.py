"""Load and its figures: who sends when, and what follows from made-up timings."""

import asyncio
import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.benchmarks.loads.ceiling import engine_ratios
from sglang_moss.benchmarks.loads.loops import Exchange, Load
from sglang_moss.benchmarks.loads.speech_reading import SpeechReading
from sglang_moss.benchmarks.loads.statistics import longest_wait, percentiles, steady_rate, steady_window, summary
from sglang_moss.clients import ServerRefused


def reading(seconds: float, *parts: float, problem: str | None = None) -> SpeechReading:
    return SpeechReading(parts or (seconds,), round(seconds * 12.5), problem, False, 0.0, 10, 5, True)


def exchange(sent_s: float, done_s: float, seconds: float = 1.0, **fields: Any) -> Exchange[SpeechReading]:
    return Exchange(sent_s, (done_s,), done_s, fields.pop("reading", reading(seconds)), **fields)


@pytest.mark.parametrize(
    ("arrivals", "parts", "wait"),
    [
        ([1.0], [5.0], -math.inf),
        ([1.0, 2.0], [1.0, 1.0], 0.0),  # just in time
        ([1.0, 1.5, 2.5], [1.0, 1.0, 1.0], -0.5),
        ([1.0, 2.25], [1.0, 1.0], 0.25),
        ([1.0, 2.5, 3.75], [1.0, 1.0, 1.0], 0.5),  # the first gap delays what is played after it
        ([1.0, 1.0, 9.0], [0.0, 2.0, 1.0], 6.0),
    ],
)
def test_a_gap_is_a_chunk_that_comes_after_the_audio_before_it(arrivals: list[float], parts: list[float], wait: float):
    assert longest_wait(arrivals, parts) == wait


@given(st.lists(st.floats(0.1, 2.0), min_size=2, max_size=20))
def test_a_stream_made_at_the_speed_of_sound_has_no_gap(parts: list[float]):
    arrivals = np.concatenate([[0.0], np.cumsum(parts)[:-1]])
    assert longest_wait(arrivals.tolist(), parts) <= 1e-9
    late = arrivals + 0.5 * (np.arange(len(parts)) == len(parts) - 1)
    assert longest_wait(late.tolist(), parts) == pytest.approx(0.5)


def test_percentiles_are_those_of_the_values():
    values = list(range(101))
    assert percentiles("x", values) == {"x_p50": 50.0, "x_p95": 95.0, "x_p99": 99.0}
    assert percentiles("x", []) == {"x_p50": None, "x_p95": None, "x_p99": None}


def test_the_steady_window_is_when_every_client_is_busy():
    #  client a: 0-4, 4-8, 8-9    client b: 1-5, 5-12
    exchanges = [exchange(0, 4), exchange(1, 5), exchange(4, 8), exchange(5, 12), exchange(8, 9)]
    assert steady_window(exchanges, 2) == (1, 9)
    assert steady_window(exchanges[:1], 2) is None
    assert steady_rate(exchanges, [4.0, 4.0, 4.0, 7.0, 1.0], (1, 9)) == (3 + 4 + 4 + 4 + 1) / 8


def test_without_a_second_round_there_may_be_no_steady_window():
    assert steady_window([exchange(0, 1), exchange(2, 3)], 2) is None


@given(st.integers(1, 5), st.integers(1, 6), st.floats(0.5, 4.0))
def test_the_steady_rate_of_equal_requests_is_the_rate_of_all(concurrency: int, rounds: int, seconds: float):
    exchanges = [exchange(r * seconds, (r + 1) * seconds) for r in range(rounds) for _ in range(concurrency)]
    window = steady_window(exchanges, concurrency)
    assert window is not None
    assert steady_rate(exchanges, [1.0] * len(exchanges), window) == pytest.approx(concurrency / seconds)


def test_only_audio_that_passed_counts():
    failed = Exchange[SpeechReading](0.0, (), 4.0, None, "HTTP 503: busy")
    wrong = exchange(0, 2, reading=reading(1.0, problem="silent"))
    figures = summary([exchange(0, 2, 6.0), failed, wrong], concurrency=3, stream=False)
    assert (figures["audio_s"], figures["wall_s"], figures["audio_s_per_s"]) == (6.0, 4.0, 1.5)
    assert (figures["n_requests"], figures["n_failed"]) == (3, 2)
    assert figures["failures"] == {"HTTP 503: busy": 1, "silent": 1}
    assert (figures["rtf_p50"], figures["ttfa_ms_p50"], figures["latency_s_p50"]) == (2 / 6, 2_000.0, 2.0)
    assert figures["gapless_share"] is None


def test_a_case_in_which_everything_failed_has_a_line():
    figures = summary([Exchange(0.0, (), 1.0, None, "HTTP 500: no")], concurrency=1, stream=True)
    assert (figures["n_failed"], figures["audio_s_per_s"]) == (1, 0.0)
    assert figures["rtf_p50"] is None
    assert figures["gapless_share"] is None


def test_the_share_of_gapless_streams_and_their_first_audio():
    smooth = Exchange(0.0, (0.1, 0.2), 0.2, reading(2.0, 1.0, 1.0))
    stuck = Exchange(0.0, (0.3, 1.8), 1.8, reading(2.0, 1.0, 1.0))
    figures = summary([smooth, stuck], concurrency=2, stream=True)
    assert figures["gapless_share"] == 0.5
    assert figures["longest_wait_ms"] == pytest.approx(500)
    assert figures["ttfa_ms_p50"] == pytest.approx(200)


def test_a_result_is_held_against_the_plain_engine_of_the_same_case():
    plain = {"benchmark": "engine_ceiling", "workload": "dialogue", "concurrency": 16, "audio_s_per_s": 99.0}
    ceiling = [plain, plain | {"audio_s_per_s": 200.0, "decode_audio_s_per_s": 250.0}, plain | {"concurrency": 64}]
    line = {"workload": "dialogue", "concurrency": 16, "audio_s_per_s": 150.0}
    assert engine_ratios(line, ceiling) == {"engine_ratio": 0.75, "engine_decode_ratio": 0.6}
    for other in ({"concurrency": None}, {"concurrency": 1}, {"workload": "short"}, {"spread": 0.5}):
        assert engine_ratios(line | other, ceiling) == {"engine_ratio": None, "engine_decode_ratio": None}


def test_a_closed_loop_keeps_as_many_requests_under_way_as_it_has_clients():
    under_way, most, order = 0, 0, []

    async def ask(number: int) -> AsyncIterator[bytes]:
        nonlocal under_way, most
        order.append(number)
        under_way, most = under_way + 1, max(most, under_way + 1)
        await asyncio.sleep(0.001)
        under_way -= 1
        if number == 4:
            raise ServerRefused(503, "busy")
        yield b"a%d" % number

    with ThreadPoolExecutor(1) as pool:
        exchanges = asyncio.run(Load(ask, lambda number, parts: (number, b"".join(parts)), pool).closed_loop(7, 3))
    assert (most, order) == (3, list(range(7)))
    readings = [e.reading for e in exchanges if e.reading is not None]
    assert sorted(readings) == [(number, b"a%d" % number) for number in (0, 1, 2, 3, 5, 6)]
    assert [e.error for e in exchanges if e.reading is None] == ["HTTP 503: busy"]


def test_an_open_loop_does_not_wait_for_answers():
    started, release = [], asyncio.Event()

    async def ask(number: int) -> AsyncIterator[bytes]:
        started.append(number)
        if len(started) == 5:
            release.set()
        await release.wait()  # the first answers only come when the last request is there
        yield b""

    with ThreadPoolExecutor(1) as pool:
        exchanges = asyncio.run(Load(ask, lambda _, parts: len(parts), pool).poisson(5, 1_000.0, seed=1))
    assert [e.reading for e in exchanges] == [1] * 5
    assert started == [0, 1, 2, 3, 4]
