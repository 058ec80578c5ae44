"""Streams over HTTP from the real server: equal to whole answers, under load, retraction and leaving clients."""

import concurrent.futures
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from generate_bodies import assert_same_speech, clip, fixed
from golden_data import GOLDEN
from waiting import wait_until_idle, wait_until_running
from warm_start import warm_server

from sglang_moss.benchmarks.reference.golden_cases import GoldenCases
from sglang_moss.benchmarks.reference.waveforms import pcm_of_wav
from sglang_moss.request.first_sound import MARKS

pytestmark = pytest.mark.server

CASES = GoldenCases(GOLDEN)
FRAME_SECONDS = 0.08


@pytest.fixture(scope="module", params=["plain", "retracted"])
def client(fused_path: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[httpx.Client]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    retraction = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "7"}
    env = retraction if request.param == "retracted" else {}
    arguments = ["--codec-slots", "6", "--codec-voices", "2", "--enable-metrics"]
    # Who may be taken out of a step by retraction may have been left out of it before.
    arguments += ["--yield-above", "2"] if request.param == "retracted" else []
    with (
        warm_server(fused_path, log=log, env=env, extra_args=arguments) as server,
        httpx.Client(base_url=server.url, timeout=180, limits=httpx.Limits(max_connections=None)) as opened,
    ):
        yield opened


def stream(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of a stream."""
    answer = client.post("/generate", json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, end = [line for line in answer.text.split("\n\n") if line]
    assert end == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples, codes and last `meta_info` of one request's events, after checks of each against those before it."""
    samples, codes, seconds = [np.empty(0)], [], 0.0
    for event in events:
        meta = event["meta_info"]
        assert meta["chunk_start_seconds"] == pytest.approx(seconds)
        if event["text"]:
            samples.append(pcm_of_wav(event["text"]))
            codes += meta["audio_codes"]
        seconds += len(samples[-1]) / 24_000 if event["text"] else 0
        assert meta["audio_seconds"] == pytest.approx(seconds)
        assert meta["audio_frames"] == len(codes)
        assert (meta["finish_reason"] is None) == (event is not events[-1])
    return {"samples": np.concatenate(samples), "codes": codes, "meta": events[-1]["meta_info"]}


def assert_same(events: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """Equal codes and totals; samples within one step of 16 bits, which other steps of the codec may round away."""
    found = joined(events)
    assert found["codes"] == whole["meta_info"]["audio_codes"]
    np.testing.assert_allclose(found["samples"], pcm_of_wav(whole["text"]), atol=1 / 32768, rtol=0)
    for name in ("audio_seconds", "audio_frames", "sampling_seed", "prompt_tokens", "completion_tokens"):
        assert found["meta"][name] == whole["meta_info"][name], name
    assert sum(len(event["output_ids"]) for event in events) == len(whole["output_ids"])


def ask(client: httpx.Client, body: dict[str, Any]) -> Any:
    answer = client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bodies(n: int) -> list[dict[str, Any]]:
    """Requests of different lengths, voices and chunk sizes."""
    voices = [[], [clip("spk1_24k.wav")], [clip("spk1_24k.wav"), clip("spk2_24k.wav")], [clip("spk2_24k.wav")]]
    return [
        {
            "text": f"[S1] Take {'one two three '[: 1 + i % 13]}.",
            "audio_data": voices[i % 4],
            "sampling_params": fixed(
                1 + 13 * i % 90,
                sampling_seed=i,
                custom_params={"chunk_frames": [1, 4, 32, 100][i // 4 % 4], "first_frames": [None, 1, 9][i % 3]},
            ),
        }
        for i in range(n)
    ]


@pytest.mark.parametrize("i", range(6))
def test_a_stream_equals_the_whole_answer(client: httpx.Client, i: int):
    body = bodies(6)[i]
    assert_same(stream(client, body), ask(client, body))


@pytest.mark.parametrize(
    ("custom", "sizes"),
    [
        ({"chunk_frames": 1}, [1] * 9),
        ({"chunk_frames": 3}, [3, 3, 3]),
        ({}, [4, 4, 1]),
        ({"first_frames": 2}, [2, 2, 4, 1]),
        ({"first_frames": 5, "chunk_frames": 2}, [5, 2, 2]),
    ],
)
def test_events_hold_as_many_frames_as_were_asked_for(client: httpx.Client, custom: dict[str, int], sizes: list[int]):
    events = stream(client, {"text": "[S1] Hello.", "sampling_params": fixed(9, custom_params=custom)})
    assert [len(pcm_of_wav(event["text"])) // 1920 for event in events if event["text"]] == sizes


@pytest.mark.parametrize("n_frames", [9, 2])
def test_the_way_of_the_first_sound_is_told_in_order(client: httpx.Client, n_frames: int):
    params = fixed(n_frames, custom_params={"timings": True, "first_frames": 3})
    sent = time.perf_counter()
    events = stream(client, {"text": "[S1] Hello.", "audio_data": [clip("spk1_24k.wav")], "sampling_params": params})
    heard = time.perf_counter()
    told = [event["meta_info"].get("timings") for event in events]
    assert told[1:] == [None] * (len(events) - 1)
    assert list(told[0]) == list(MARKS)
    times = [sent, *told[0].values(), heard]
    assert times == sorted(times)


def test_the_way_of_a_whole_answer_is_not_told(client: httpx.Client):
    body = {"text": "[S1] Hello.", "sampling_params": fixed(2, custom_params={"timings": True})}
    answer = client.post("/generate", json=body)
    assert answer.status_code == 400
    assert "send stream true" in answer.json()["error"]["message"]


def test_many_streams_and_whole_answers_at_once_equal_each_alone(client: httpx.Client, request: pytest.FixtureRequest):
    requests = bodies(20)
    alone = [ask(client, body) for body in requests]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        whole = [pool.submit(ask, client, body) for body in requests]
        streams = [pool.submit(stream, client, body) for body in requests]
        for future, expected in zip(streams, alone, strict=True):
            assert_same(future.result(), expected)
        n_retractions = sum(future.result()[-1]["meta_info"]["num_retractions"] for future in streams)
        assert (n_retractions > 0) == (request.node.callspec.params["client"] == "retracted")
        for future, expected in zip(whole, alone, strict=True):
            assert_same_speech(future.result(), expected)
    assert (n_put_off(client) > 0) == (request.node.callspec.params["client"] == "retracted")


def n_put_off(client: httpx.Client) -> float:
    """Rows that requests of this server were made to wait for."""
    found = re.findall(r"^moss_ttsd:rows_put_off\S* (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def test_streams_that_are_far_ahead_sit_out_and_say_the_same(client: httpx.Client):
    """Four long streams, and short ones that come while those are ahead."""
    often = {"chunk_frames": 1}  # a second ahead is far enough
    long = [
        {"text": f"[S1] Long {i}.", "sampling_params": fixed(60, sampling_seed=i, custom_params=often)}
        for i in range(4)
    ]
    short = [{"text": f"[S1] Short {i}.", "sampling_params": fixed(8, sampling_seed=i)} for i in range(8)]
    expected = [ask(client, body) for body in long + short]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(stream, client, body) for body in long]
        running += [pool.submit(stream, client, body) for body in short]  # as places in the pool come free
        for future, whole in zip(running, expected, strict=True):
            assert_same(future.result(), whole)


def test_batches_and_samples_stream_side_by_side(client: httpx.Client):
    texts = ["[S1] One.", "[S1] Two. [S2] Three."]
    body = {"text": texts, "audio_data": [[], [clip("spk1_24k.wav")]], "sampling_params": fixed(11, n=2)}
    whole, events = ask(client, body), stream(client, body)
    for i, expected in enumerate(whole):
        assert_same([event for event in events if event["index"] == i], expected)


def test_turns_have_the_same_times_streamed_and_whole(client: httpx.Client):
    texts = ["[S1] Did you hear that? [S2] No. What was it?", "[S1] Hello there."]
    body = {"text": texts, "sampling_params": fixed(40, n=2), "timestamps": True}
    whole, events = ask(client, body), stream(client, body)
    for i, answer in enumerate(whole):
        turns = answer["meta_info"]["turns"]
        words = ["Did you hear that?", "No. What was it?"] if i < 2 else ["Hello there."]
        assert [turn["text"] for turn in turns] == words
        times = [time for turn in turns for time in (turn["start"], turn["end"])]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= answer["meta_info"]["audio_seconds"]
        mine = [event["meta_info"] for event in events if event["index"] == i]
        assert mine[-1]["turns"] == turns
        assert not any("turns" in meta for meta in mine[:-1])


@pytest.mark.parametrize("streams", [False, True])
def test_times_of_a_continued_script_are_refused(client: httpx.Client, streams: bool):
    body = {"text": "[S1] One. [S1] Two.", "audio_data": [clip("spk1_24k.wav")], "timestamps": True}
    if streams:
        [event] = stream(client, body)
        said = event["error"]["message"]
    else:
        answer = client.post("/generate", json=body)
        assert answer.status_code == 400
        said = answer.text
    assert "voice_clone" in said


def test_a_stream_without_a_whole_frame_ends_in_an_event_that_says_why(client: httpx.Client):
    [event] = stream(client, CASES.served_request("no_audio_data.silent"))
    reason = event["meta_info"]["finish_reason"]
    assert (event["text"], reason["type"], reason["status_code"]) == ("", "abort", 400)
    assert "no audio" in reason["message"]


def test_a_refused_stream_says_why(client: httpx.Client):
    [event] = stream(client, {"text": "[S1] Hi.", "sampling_params": {"custom_params": {"chunk_frames": 513}}})
    assert (event["error"]["status_code"], event["error"]["code"]) == (400, "bad_setting")
    assert "chunk_frames must be an integer in [1, 512]" in event["error"]["message"]


def test_audio_comes_while_the_model_still_speaks(client: httpx.Client):
    """The first event of an endless request, after which its client leaves, and nobody is disturbed."""
    endless = {"text": "[S1] Hello.", "sampling_params": fixed(20_000)}
    beside = {"text": "[S1] Hello.", "sampling_params": fixed(60, sampling_seed=3)}
    expected = ask(client, beside)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        client.stream("POST", "/generate", json={**endless, "stream": True}) as answer,
    ):
        assert answer.status_code == 200
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
        assert json.loads(first.removeprefix("data: "))["meta_info"]["audio_frames"] == 4
        other = pool.submit(stream, client, beside)
        assert_same(other.result(), expected)
    wait_until_idle(client)


def test_a_client_that_leaves_stops_its_generation_at_once(client: httpx.Client):
    """Whether its request runs, waits in a batch or has references to encode."""
    wait_until_idle(client)
    for body in (
        {"text": "[S1] Hello.", "sampling_params": fixed(20_000)},
        {"text": ["[S1] a", "[S1] b", "[S1] c"], "sampling_params": fixed(20_000)},
        {"text": "[S1] Hello.", "audio_data": [clip("spk1_24k.wav")], "sampling_params": fixed(20_000)},
    ):
        # SGLang's own way sleeps two seconds first, every time; ours may be held up by what else the machine does.
        assert any(seconds_until_idle(client, body) < 1.5 for _ in range(5))
    leave_before_the_answer(client, {"text": "[S1] a", "stream": True})
    ask(client, {"text": "[S1] Hello.", "sampling_params": fixed(2)})  # by whose end the server has met it
    wait_until_idle(client)


def seconds_until_idle(client: httpx.Client, body: dict[str, Any]) -> float:
    """From when a stream's client leaves after its first event."""
    with client.stream("POST", "/generate", json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()  # as soon as nobody has it, the connection is closed
        next(lines)
        wait_until_running(client)
        del lines
    left_at = time.monotonic()
    wait_until_idle(client)
    return time.monotonic() - left_at


def leave_before_the_answer(client: httpx.Client, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head.encode() + content)
