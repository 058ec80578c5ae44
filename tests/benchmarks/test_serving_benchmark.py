"""`moss-ttsd bench` from the command line to its lines, on a made-up server and on the real one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_speech_server import FakeServer, fake_speech_server, speech_answer, speech_events
from typer.testing import CliRunner
from warm_start import warm_server

from sglang_moss.benchmarks import first_sound, listeners, serving
from sglang_moss.benchmarks.runs.record import read_lines
from sglang_moss.clients.cli import app

pytestmark = pytest.mark.wide

FAST = ["--audio-seconds", "0.4", "--reference-seconds", "0.5", "--warm-up-seconds", "0.4", "--least-requests", "3"]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_speech_server() as fake:
        yield fake


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_bench_measures_a_server_and_writes_lines(server: FakeServer, tmp_path: Path, stream: list[str]):
    server.events = speech_events([5])  # at once: between two events a busy machine may make listeners wait
    out = tmp_path / "lines.jsonl"
    command = ["bench", "--url", server.url, "--concurrency", "1", "2", *FAST, *stream, "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    lines = read_lines(out)
    assert [(line["concurrency"], line["n_requests"], line["n_failed"]) for line in lines] == [(1, 4, 0), (2, 8, 0)]
    for line in lines:
        assert line["audio_s"] == pytest.approx(0.4 * line["n_requests"])
        assert line["audio_s_per_s"] == pytest.approx(line["audio_s"] / line["wall_s"])
        assert line["benchmark"] == "serving"
        assert line["gapless_share"] == (1.0 if stream else None)
    scripts = [b["text"] for b in server.bodies if "text" in b]
    assert len(scripts) == len(set(scripts)) == 4 + 8 + 2 + 3  # measured ones, and those of the warm-up


def test_bench_holds_every_answer_against_its_own_length(server: FakeServer, tmp_path: Path):
    out = tmp_path / "lines.jsonl"
    args = ["--url", server.url, "--concurrency", "2", *FAST, "--spread", "0.9", "--requests", "12", "--out", str(out)]
    assert serving.main(args) == 1  # the made-up server speaks 5 frames, whatever it is asked for
    (line,) = read_lines(out)
    asked = [b["sampling_params"]["max_new_tokens"] for b in server.bodies if "text" in b][-12:]
    assert line["failures"] == {"wrong length": 12 - asked.count(5)}
    assert 0 < line["n_failed"] < 12
    assert (line["audio_s"], line["spread"]) == (pytest.approx(0.4 * asked.count(5)), 0.9)


def test_bench_fails_where_the_audio_is_not_what_was_asked_for(server: FakeServer, tmp_path: Path):
    server.answer = json.dumps(speech_answer(4)).encode()
    out = tmp_path / "lines.jsonl"
    args = ["--url", server.url, "--concurrency", "2", *FAST, "--requests", "4", "--out", str(out)]
    assert serving.main(args) == 1
    (line,) = read_lines(out)
    assert (line["n_failed"], line["failures"], line["audio_s_per_s"]) == (4, {"wrong length": 4}, 0.0)


def test_bench_says_what_is_wrong_before_it_measures(server: FakeServer, capsys: pytest.CaptureFixture[str]):
    server.status, server.answer = 400, b'{"error": {"message": "text is missing"}}'
    assert serving.main(["--url", server.url, "--concurrency", "1", *FAST, "--out", "/dev/null"]) == 1
    assert "error: while warming up: HTTP 400: text is missing" in capsys.readouterr().err


SOUNDS = ["--audio-seconds", "0.4", "--reference-seconds", "0.5", "--warm-up-seconds", "0.4"]


def test_first_sounds_of_a_server_that_tells_no_times_are_an_error(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["--url", server.url, *SOUNDS, "--concurrency", "1", "--least-requests", "2", "--out", str(tmp_path / "o")]
    assert first_sound.main(args) == 1
    assert "error: the first event tells no received, read, " in capsys.readouterr().err
    assert all(body["sampling_params"]["custom_params"]["timings"] for body in server.bodies if "text" in body)
    assert not (tmp_path / "o").exists()


def test_first_sounds_that_failed_are_counted(server: FakeServer, tmp_path: Path):
    server.events = speech_events([1, 1])
    out = tmp_path / "lines.jsonl"
    args = ["--url", server.url, *SOUNDS, "--concurrency", "2", "--least-requests", "2", "--voices", "new"]
    assert first_sound.main([*args, "--rounds", "2", "--out", str(out)]) == 1
    (line,) = read_lines(out)
    assert (line["n_requests"], line["failures"]) == (4, {"wrong length": 4})
    assert (line["first_audio_ms_p50"], line["remainder_ms_p50"], line["voices"]) == (None, None, "new")


LISTENERS = [
    "--audio-seconds", "0.4", "--reference-seconds", "0.5", "--spread", "0", "--warm-up", "0.2", "--tail", "60",
]  # fmt: skip


def test_bench_finds_how_many_listeners_a_server_serves(server: FakeServer, tmp_path: Path):
    server.events = speech_events([5])  # see above
    out = tmp_path / "lines.jsonl"
    command = ["bench", "--listeners", "--url", server.url, *LISTENERS, "--window", "1", "--out", str(out)]
    command += ["--first", "2", "--most", "4", "--first-audio-ms", "60000", "--gapless-share", "0.01"]
    assert CliRunner().invoke(app, command).exit_code == 0
    *loads, found = read_lines(out)
    assert [(line["benchmark"], line["offered_listeners"], line["kept"]) for line in loads] == [
        ("listeners_load", 2.0, True),
        ("listeners_load", 4.0, True),
    ]
    assert (found["benchmark"], found["listeners"]) == ("listeners", loads[1]["listeners"])
    assert (found["n_loads"], found["broken_at"], found["promise"]["first_audio_ms"]) == (2, None, 60_000.0)
    assert [line["n_failed"] for line in loads] == [0, 0]
    assert {"gpu", "commit", "date", "gpu_watts", "gpu_memory_mib"} <= found.keys()
    assert all(body["stream"] for body in server.bodies if "text" in body)


def test_bench_finds_no_listeners_where_every_answer_is_wrong(server: FakeServer, tmp_path: Path):
    server.events = speech_events([4])
    out = tmp_path / "lines.jsonl"
    args = ["--url", server.url, *LISTENERS, "--window", "1", "--first", "1.5", "--out", str(out)]
    assert listeners.main(args) == 1
    load, found = read_lines(out)
    assert load["failures"] == {"wrong length": load["n_requests"]}
    assert (found["benchmark"], found["kept"], found["listeners"], found["broken_at"]) == (
        "listeners",
        False,
        None,
        1.5,
    )


@pytest.mark.server
def test_bench_on_the_real_server(fused_path: Path, tmp_path: Path):
    out = tmp_path / "lines.jsonl"
    clips = tmp_path / "clips"
    clips.mkdir()
    extra = ["--reference-root", str(clips)]
    with warm_server(fused_path, extra_args=extra, log=tmp_path / "server.log") as running:
        args = ["--url", running.url, *FAST, "--out", str(out)]
        assert serving.main([*args, "--concurrency", "2", "--requests", "4"]) == 0
        assert serving.main([*args, "--rate", "20", "--requests", "3", "--uncached-references"]) == 0
        assert serving.main([*args, "--concurrency", "2", "--requests", "4", "--stream"]) == 0
        promise = ["--first-audio-ms", "60000", "--gapless-share", "0.5"]  # two cores are not a card
        found = tmp_path / "listeners.jsonl"
        load = ["--window", "2", "--first", "0.8", "--most", "0.8", "--new-voices", "0.5", "--timings"]
        assert listeners.main(["--url", running.url, *LISTENERS, *load, *promise, "--out", str(found)]) == 0
        sounds = tmp_path / "first_sound.jsonl"
        once = ["--concurrency", "2", "--rounds", "1", "--least-requests", "2", "--first-frames", "2"]
        voices = ["--voices", "known", "by-path", "new", *extra]
        assert first_sound.main(["--url", running.url, *SOUNDS, *once, *voices, "--out", str(sounds)]) == 0
    known, by_path, new = read_lines(sounds)
    assert [line["references_cached_share"] for line in (known, by_path, new)] == [1.0, 1.0, 0.0]
    assert len(list(clips.iterdir())) == 2  # one a speaker, for all requests
    for line in (known, by_path, new):
        assert line["first_event_frames"] == 2
        assert line["n_failed"] == 0
        assert sum(line["parts_ms_mean"].values()) == pytest.approx(line["first_audio_ms_mean"])
        assert min(line["parts_ms_mean"].values()) >= 0
    load, result = read_lines(found)
    assert (load["kept"], load["n_failed"], result["listeners"]) == (True, 0, load["listeners"])
    assert 0 < load["n_new_voices"] < load["n_requests"]
    assert min(load["parts_ms_p50"].values()) >= 0
    assert load["new_voice_parts_ms_p50"]["references"] > load["parts_ms_p50"]["references"]  # which are encoded
    assert sum(load["slowest_parts_ms_mean"].values()) >= load["ttfa_ms_p50"]
    whole, open_loop, streamed = read_lines(out)
    assert [line["n_failed"] for line in (whole, open_loop, streamed)] == [0, 0, 0]
    assert whole["references_cached_share"] == 1.0
    assert 0 < whole["cached_tokens"] < whole["prompt_tokens"]
    assert (open_loop["rate"], open_loop["concurrency"], open_loop["references_cached_share"]) == (20.0, None, 0.0)
    assert streamed["ttfa_ms_p50"] <= 1e3 * streamed["latency_s_p50"]
