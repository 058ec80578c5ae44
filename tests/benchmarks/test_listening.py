"""Listeners and the search for the load they are served at: who had to wait, what was promised, where a search ends."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.benchmarks.engine_listeners import plain_seconds
from sglang_moss.benchmarks.listeners import speech_seconds, timings_of
from sglang_moss.benchmarks.listeners_plot import curves
from sglang_moss.benchmarks.listening import load
from sglang_moss.benchmarks.listening.capacity_search import CapacitySearch
from sglang_moss.benchmarks.listening.listener import Listener, Stream
from sglang_moss.benchmarks.listening.load import ListeningLoad, arrivals
from sglang_moss.benchmarks.listening.promise import Heard, Promise, Window, figures, is_broken, is_late, is_lost
from sglang_moss.benchmarks.loads.first_sound_parts import PARTS
from sglang_moss.benchmarks.loads.statistics import longest_wait
from sglang_moss.clients import ServerRefused
from sglang_moss.request.first_sound import MARKS


class Script:
    """A server by a clock of its own: what it sends, and when; who sleeps finds what has come meanwhile."""

    def __init__(self, *parts: tuple[float, float], error: bool = False) -> None:
        self.now = 0.0
        self._parts = parts
        self._error = error

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def events(self) -> AsyncIterator[bytes]:
        total = 0.0
        for at, seconds in self._parts:
            self.now = max(self.now, at)
            total += seconds
            yield str(total).encode()
        if self._error:
            raise ServerRefused(503, "busy")

    def heard(self, buffer_s: float = math.inf, start_s: float = 0.0) -> Stream:
        stream = Stream(0, asked_s=0.0)
        listener = Listener(lambda event: float(event) or None, buffer_s, start_s, self.clock, self.sleep)
        asyncio.run(listener.listen(stream, self.events()))
        return stream


@pytest.mark.parametrize(
    ("parts", "first", "wait"),
    [
        ([(0.5, 1.0), (1.0, 1.0), (2.5, 1.0)], 0.5, 0.0),  # the last sample comes as it is needed
        ([(0.5, 1.0), (1.0, 1.0), (2.625, 1.0)], 0.5, 0.125),
        ([(0.5, 1.0), (2.0, 1.0), (3.25, 1.0)], 0.5, 0.5),  # after a gap, playback goes on from there
        ([(0.25, 0.0), (0.5, 1.0), (1.25, 0.0)], 0.5, -math.inf),  # an event without audio is none
    ],
)
def test_a_gap_is_a_sample_that_is_not_there_when_it_is_played(
    parts: list[tuple[float, float]], first: float, wait: float
):
    stream = Script(*parts).heard()
    assert stream.is_whole
    assert (stream.first_audio(9.0), stream.wait(9.0), is_broken(stream, 9.0)) == (first, wait, wait > 0)


def test_a_listener_reads_no_further_ahead_than_its_buffer_and_waits_for_nothing_by_that():
    script = Script(*[(0.0, 1.0)] * 6)  # all of it is there at once
    stream = script.heard(buffer_s=2.0)
    assert stream.arrivals_s == [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]
    assert stream.wait(9.0) == -1.0


def test_playback_begins_when_enough_is_there():
    stream = Script((1.0, 0.25), (2.0, 0.25), (3.0, 0.5), (3.5, 1.0)).heard(start_s=1.0)
    assert (stream.arrivals_s, stream.part_seconds) == ([3.0, 3.5], [1.0, 1.0])


def test_a_failure_in_the_middle_breaks_a_stream():
    stream = Script((0.5, 1.0), error=True).heard()
    assert (stream.error, stream.is_whole, is_broken(stream, 0.75)) == ("HTTP 503: busy", False, True)


@given(st.lists(st.tuples(st.floats(0.01, 2), st.floats(0.01, 2)), min_size=1, max_size=20))
def test_the_wait_is_the_one_of_the_closed_loop(parts: list[tuple[float, float]]):
    stream, now = Stream(0, 0.0), 0.0
    for pause, seconds in parts:
        now += pause
        stream.add(now, seconds)
    stream.is_whole = True
    assert stream.wait(now) == pytest.approx(longest_wait(stream.arrivals_s, stream.part_seconds))


def test_a_stream_that_stands_still_has_a_gap_while_nothing_comes():
    stream = Stream(0, asked_s=1.0)
    stream.add(1.5, 1.0)
    assert [is_broken(stream, now) for now in (2.5, 2.75)] == [False, True]
    assert stream.listened(0.0, 3.0) == 1.5  # it still listens
    stream.is_whole = True
    assert (is_broken(stream, 9.0), stream.listened(0.0, 3.0), stream.listened(2.0, 2.25)) == (False, 1.0, 0.25)


def test_who_has_heard_nothing_yet_is_late_when_the_promise_has_passed():
    stream = Stream(0, asked_s=1.0)
    assert [is_late(stream, Promise(), now) for now in (1.5, 1.75)] == [False, True]


def whole(number: int, asked_s: float, first_s: float, wait_s: float = -1.0) -> Stream:
    """Two seconds of audio in two parts, the second one `wait_s` after the first has been played."""
    stream = Stream(number, asked_s)
    stream.add(asked_s + first_s, 1.0)
    stream.add(asked_s + first_s + 1.0 + wait_s, 1.0)
    stream.is_whole = True
    return stream


def heard(streams: Sequence[Stream], ended_s: float = 20.0, problems: dict[int, str] | None = None) -> Heard:
    n_due = sum(5 <= stream.asked_s < 15 for stream in streams)
    return Heard(streams, n_due, Window(5, 10, 5), 0.0, ended_s, problems or {}, frozenset({1}), [0.0])


def test_the_figures_are_those_of_the_window():
    streams = [whole(0, 1.0, 9.0, 9.0), *(whole(i, 5.0 + 0.1 * i, 0.25) for i in range(1, 101)), whole(101, 16, 9)]
    found = figures(heard(streams), Promise())
    assert (found["n_requests"], found["requests_per_s"], found["kept"]) == (100 - 1, 9.9, True)
    assert found["ttfa_ms_p95"] == found["new_voice_ttfa_ms_p95"] == pytest.approx(250)
    assert (found["gapless_share"], found["late_share"], found["n_new_voices"]) == (1.0, 0.0, 1)
    # Of those that count, the last ones are heard beyond the window; the first stream of all is heard from 10 on.
    assert found["listeners"] == pytest.approx(sum(s.listened(5, 15) for s in streams) / 10)
    assert found["audio_s_per_s"] == pytest.approx((97 + 97 + 1) / 10, abs=0.21)


def test_where_the_first_sounds_of_a_load_went_is_told_of_known_and_new_voices_and_of_the_slowest():
    streams = [whole(i, 5.0 + 0.1 * i, first_s=0.1 + 0.001 * i) for i in range(20)]
    assert "parts_ms_p50" not in figures(heard(streams), Promise())
    for stream in streams:  # all of it passes before the first frames are whole
        when = stream.asked_s, stream.arrivals_s[0]
        stream.marks = {name: when[MARKS.index(name) >= MARKS.index("frames")] for name in MARKS}
    found = figures(heard(streams), Promise())
    known = [0.1 + 0.001 * i for i in range(20) if i != 1]
    slowest = {"frames": 1e3 * (0.118 + 0.119) / 2}
    assert found["parts_ms_p50"] == pytest.approx(dict.fromkeys(PARTS, 0.0) | {"frames": 1e3 * known[9]}, abs=1e-6)
    assert found["new_voice_parts_ms_p50"] == pytest.approx(dict.fromkeys(PARTS, 0.0) | {"frames": 101.0}, abs=1e-6)
    assert found["slowest_parts_ms_mean"] == pytest.approx(dict.fromkeys(PARTS, 0.0) | slowest, abs=1e-6)


@pytest.mark.parametrize(("n_late", "n_broken", "kept"), [(5, 1, True), (6, 1, False), (5, 2, False), (0, 0, True)])
def test_a_promise_is_kept_to_the_stream(n_late: int, n_broken: int, kept: bool):
    streams = [
        whole(i, 5 + 0.09 * i, 0.75 if i < n_late else 0.5 - 1e-6, 0.5 if i >= 100 - n_broken else 0.0)
        for i in range(100)
    ]
    assert figures(heard(streams), Promise())["kept"] is kept
    assert is_lost(streams, 100, Promise(), 20.0) is not kept


def test_audio_that_is_wrong_breaks_the_promise_and_so_does_an_early_end():
    streams = [whole(i, 5 + 0.1 * i, 0.25) for i in range(50)]
    wrong = figures(heard(streams, problems={3: "wrong length"}), Promise())
    assert (wrong["kept"], wrong["failures"]) == (False, {"wrong length": 1})
    early = figures(heard(streams, ended_s=12.0), Promise())
    assert (early["kept"], early["ended_early"], early["listeners"], early["requests_per_s"]) == (
        False,
        True,
        None,
        None,
    )


@given(st.floats(0.5, 5_000), st.floats(1, 500), st.sampled_from([0.02, 0.05, 0.2]))
def test_the_search_finds_the_capacity_within_its_resolution(capacity: float, first: float, resolution: float):
    search, n = CapacitySearch(first, 4_096, resolution), 0
    while (load := search.next_load()) is not None:
        search.tell(load, load <= capacity)
        n += 1
    assert n <= 22
    if search.kept is None:
        assert capacity < 2
    elif capacity >= 4_096:
        assert search.kept == 4_096
    else:
        assert search.kept <= capacity <= search.kept * (1 + resolution) + 1e-9


def test_arrivals_are_one_pattern_at_every_rate():
    slow, fast = arrivals(2.0, 100.0, seed=1), arrivals(4.0, 50.0, seed=1)
    assert slow == pytest.approx([2 * t for t in fast])
    assert 150 < len(slow) < 250
    assert arrivals(2.0, 100.0, seed=2) != slow


class OwnTime(asyncio.SelectorEventLoop):
    """An event loop in whose time only sleep takes any: when all sleep, it is as late as the first of them wakes."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # pyright: ignore[reportAttributeAccessIssue]
            self._now = max(self._now, self._scheduled[0].when())  # pyright: ignore[reportAttributeAccessIssue]
        super()._run_once()  # pyright: ignore[reportAttributeAccessIssue]


class AtOnce(Executor):
    """Does its work where it is given it."""

    def submit(self, work: Callable[..., Any], /, *operands: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*operands, **named))
        return done


@pytest.mark.parametrize(("step_s", "kept"), [(0.02, True), (0.12, False)])
def test_a_load_is_judged_by_what_its_listeners_heard_and_taken_away_when_that_is_known(
    monkeypatch: pytest.MonkeyPatch, step_s: float, kept: bool
):
    under_way: set[bytes] = set()

    async def ask(body: bytes) -> AsyncGenerator[bytes, None]:
        under_way.add(body)
        try:
            for n in range(1, 6):
                await asyncio.sleep(step_s)
                yield b"%.2f" % (n * 0.08)
        finally:
            under_way.discard(body)

    def now() -> float:
        return asyncio.get_running_loop().time()

    monkeypatch.setattr(load, "time", SimpleNamespace(perf_counter=now))
    listener = Listener(float, buffer_s=0.2, clock=now)
    streams = ListeningLoad(ask, lambda number: (b"%d" % number, number % 2 == 0), None, listener, AtOnce())
    with asyncio.Runner(loop_factory=OwnTime) as runner:
        found = runner.run(streams.run(40.0, Window(0.2, 0.5, 2.0), Promise(), seed=3))
    told = figures(found, Promise())
    assert (told["kept"], told["ended_early"], under_way) == (kept, not kept, set())
    assert found.ended_s - found.began_s < 2.6  # not the whole tail
    if kept:
        assert told["n_requests"] == found.n_due > 8
        assert told["n_new_voices"] == sum(s.number % 2 == 0 for s in found.counted())
        assert 0 < told["listeners"] < 40


def test_the_first_event_alone_is_asked_for_its_marks():
    script = Script((0.1, 0.08), (0.2, 0.08))
    asked: list[bytes] = []

    def marks(event: bytes) -> dict[str, float]:
        asked.append(event)
        return {"received": 0.05}

    listener = Listener(float, math.inf, marks=marks, clock=script.clock, sleep=script.sleep)
    stream = Stream(0, 0.0)
    asyncio.run(listener.listen(stream, script.events()))
    assert (stream.marks, len(asked), stream.is_whole) == ({"received": 0.05}, 1, True)
    assert timings_of(b'{"meta_info": {"timings": {"received": 0.05}}}') == {"received": 0.05}
    assert timings_of(b'{"meta_info": {}}') == {}


def test_events_say_how_much_audio_has_come():
    assert speech_seconds(b'{"text": "", "meta_info": {"audio_seconds": 1.28}}') == 1.28
    assert speech_seconds(b'{"error": {"message": "no"}}') is None
    assert plain_seconds(b'{"output_ids": [1], "meta_info": {"completion_tokens": 5}}') == pytest.approx(0.4)


def test_a_plot_has_a_curve_for_each_commit_and_for_the_plain_engine():
    line = {"benchmark": "listeners_load", "offered_listeners": 64.0, "ttfa_ms_p95": 9.0, "commit": "a", "gpu": "H100"}
    lines = [
        line | {"offered_listeners": 128.0},
        line | {"ttfa_ms_p95": 8.0},
        line,
        line | {"commit": "b"},
        line | {"plain": True, "ttfa_ms_p95": 7.0},
        line | {"benchmark": "listeners", "ttfa_ms_p95": 1.0},
        line | {"offered_listeners": 256.0, "ttfa_ms_p95": None},
    ]
    assert curves(lines, "ttfa_ms_p95") == {
        "speech, a, H100": [(64.0, 9.0), (128.0, 9.0)],
        "speech, b, H100": [(64.0, 9.0)],
        "plain text model, same engine, a, H100": [(64.0, 7.0)],
    }
