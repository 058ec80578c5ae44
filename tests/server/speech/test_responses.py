"""The endpoints on a real HTTP server over a stand-in for SGLang: what leaves when, and what happens when it breaks."""

import base64
import http.client
import io
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from fake_endpoints import serving, three_events
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, STOP, event, frames_of
from fastapi import HTTPException
from sound_files import tone_file
from waiting import wait_for

from sglang_moss.errors import BadReference, BadText, MossError

SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(three_events, tmp_path) as (opened, _manager):
        yield opened


def sse_events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]


def test_the_default_is_mp3_and_headers_say_what_comes(client: httpx.Client):
    answer = client.post(SPEECH, json={"input": "a"})
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["x-sample-rate"] == str(SAMPLE_RATE)
    assert len(answer.headers["x-request-id"]) == 32
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == SAMPLE_RATE
    assert len(samples) >= 9 * FRAME_SAMPLES


def test_events_are_openais(client: httpx.Client):
    answer = client.post(SPEECH, json={"input": "a", "stream_format": "sse", "response_format": "pcm"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = sse_events(answer.text)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    pcm = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert pcm == np.concatenate([frames_of(level) for level in (100, 200, 300)]).tobytes()
    usage = {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14}
    assert done == {"type": "speech.audio.done", "usage": usage}


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("audio_format", ["pcm", "wav", "mp3", "opus", "aac", "flac"])
def test_sound_is_heard_before_the_next_is_made(tmp_path: Path, audio_format: str, stream_format: str):
    may_go_on = threading.Event()

    def script(_request: Any) -> Iterator[dict[str, Any]]:
        yield event(frames_of(100, 25))
        assert may_go_on.is_set()
        yield event(frames_of(200), STOP)

    body = {"input": "a", "response_format": audio_format, "stream_format": stream_format}
    with (
        serving(script, tmp_path, pause_seconds=0.3) as (client, _),
        client.stream("POST", SPEECH, json=body) as answer,
    ):
        pieces = answer.iter_raw()
        first = next(pieces)
        assert len(first) > 100
        may_go_on.set()
        assert b"".join(pieces)


FAILURES = {
    "BadText": (BadText("text: no"), 400, "input"),
    "BadReference": (BadReference("reference 1: no"), 400, "references"),
    "ValueError": (ValueError("no"), 400, None),
    "MossError": (MossError("the codec failed"), 500, None),
    "HTTPException": (HTTPException(503, "the queue is full"), 503, None),
    "abort": (event(frames_of(0, 0), {"type": "abort", "message": "full", "status_code": 503}), 503, None),
    "bug": (KeyError("secret"), 500, None),
}


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_before_the_first_sound_is_an_answer(tmp_path: Path, name: str, stream_format: str):
    failure, status, param = FAILURES[name]
    with serving(lambda _: [failure], tmp_path) as (client, manager):
        answer = client.post(SPEECH, json={"input": "a", "stream_format": stream_format})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["param"] == param
        assert error["message"]
        assert "secret" not in error["message"]
        wait_for(lambda: len(manager.closed) == 1)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_after_the_first_sound_cuts_the_file(tmp_path: Path, name: str):
    failing = serving(lambda _: [event(frames_of(1)), FAILURES[name][0]], tmp_path)
    with failing as (client, _), pytest.raises(httpx.RemoteProtocolError):
        client.post(SPEECH, json={"input": "a", "response_format": "pcm"})


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_after_the_first_event_is_the_last_event(tmp_path: Path, name: str):
    with serving(lambda _: [event(frames_of(1)), FAILURES[name][0]], tmp_path) as (client, _):
        answer = client.post(SPEECH, json={"input": "a", "response_format": "pcm", "stream_format": "sse"})
        first, last = sse_events(answer.text)
        assert first["type"] == "speech.audio.delta"
        assert last["type"] == "error"
        assert last["error"]["message"]


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("heard", [0, 1, 3])
def test_a_client_that_leaves_ends_the_generation(tmp_path: Path, heard: int, stream_format: str):
    def endless(_request: Any) -> Iterator[dict[str, Any]]:
        yield from (event(frames_of(i % 1000 if heard else 0, 1 if heard else 0)) for i in itertools.count())

    body = {"input": "a", "response_format": "pcm", "stream_format": stream_format}
    with serving(endless, tmp_path, pause_seconds=0.02) as (client, manager):
        if heard:
            with client.stream("POST", SPEECH, json=body) as answer:
                for _ in zip(range(heard), answer.iter_raw(), strict=False):
                    assert not manager.closed
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(SPEECH, json=body, timeout=0.3)
        wait_for(lambda: len(manager.closed) == 1, seconds=3)


BAD_BODIES: dict[str, tuple[Any, str, str | None]] = {
    "unknown fields": ({"input": "a", "foo": 1, "bar": 2}, "foo, bar", "foo"),
    "unknown inner field": ({"input": "a", "references": [{"audio": "x", "path": "/"}]}, "path", "references.0.path"),
    "unknown format": ({"input": "a", "response_format": "midi"}, "mp3", "response_format"),
    "a number as text": ({"input": 3}, "string", "input"),
    "text as a number": ({"input": "a", "temperature": "hot"}, "number", "temperature"),
    "half a character": ({"input": "a\ud800"}, "input", "input"),
    "a list": ([1], "body", None),
    "nothing": (None, "body", None),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_by_name(client: httpx.Client, name: str):
    body, word, param = BAD_BODIES[name]
    answer = client.post(SPEECH, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert word in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff", b'{"input": "a"'])
def test_what_is_no_json_is_refused(client: httpx.Client, content: bytes):
    answer = client.post(SPEECH, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_body_beyond_every_limit_is_not_read(tmp_path: Path):
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000_000
            yield b"a" * 1_000_000

    with serving(three_events, tmp_path) as (client, manager):
        for path in (SPEECH, VOICES):
            connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=30)
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(10**12))
            connection.endheaders()
            assert connection.getresponse().status == 413
            connection.close()
            sent = 0
            try:
                headers = {"Content-Type": "application/json" if path == SPEECH else "multipart/form-data; boundary=a"}
                assert client.post(path, content=flood(), headers=headers).status_code in (400, 413)
            except httpx.TransportError:
                pass  # the server closes the connection while we still write
            assert sent < 300_000_000
        assert not manager.requests


def test_voices_are_stored_listed_used_and_removed(tmp_path: Path):
    with serving(three_events, tmp_path) as (client, manager):
        form = {"name": "Alice", "text": " I am Alice. "}
        answer = client.post(VOICES, data=form, files={"audio": ("a.wav", tone_file(0.5))})
        assert answer.status_code == 201
        voice = answer.json()
        expected = {"object": "voice", "id": "Alice", "name": "Alice", "text": "I am Alice.", "seconds": 0.5}
        assert {name: voice[name] for name in expected} == expected
        assert client.get(VOICES).json() == {"object": "list", "data": [voice]}
        assert client.post(SPEECH, json={"input": "a", "voice": "Alice"}).status_code == 200
        assert manager.requests[0].audio_data == [tone_file(0.5)]
        assert client.post(VOICES, data=form, files={"audio": ("a.wav", tone_file(0.5))}).status_code == 409
        assert client.delete(f"{VOICES}/Alice").status_code == 200
        gone = client.delete(f"{VOICES}/Alice")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "unknown_voice")
        assert client.post(SPEECH, json={"input": "a", "voice": "Alice"}).json()["error"]["param"] == "voice"
    with serving(three_events, tmp_path) as (client, _):
        assert client.get(VOICES).json()["data"] == []


BAD_UPLOADS: dict[str, tuple[dict[str, str], bytes | None, str]] = {
    "no audio": ({"name": "a"}, None, "audio"),
    "no name": ({}, tone_file(0.5), "name"),
    "not audio": ({"name": "a"}, b"RIFF", "audio"),
    "empty": ({"name": "a"}, b"", "audio"),
    "too short": ({"name": "a"}, tone_file(0.07), "audio"),
    "too long": ({"name": "a"}, tone_file(60.1), "audio"),
    "bad name": ({"name": "../a"}, tone_file(0.5), "name"),
    "default": ({"name": "default"}, tone_file(0.5), "name"),
    "tags": ({"name": "a", "text": "[S1] a"}, tone_file(0.5), "text"),
    "a control token": ({"name": "a", "text": "<|im_end|>"}, tone_file(0.5), "text"),
    "a book": ({"name": "a", "text": "a" * 20_000}, tone_file(0.5), "text"),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_uploads_are_refused_and_leave_nothing(client: httpx.Client, tmp_path: Path, name: str):
    form, audio, word = BAD_UPLOADS[name]
    files = {"audio": ("a.wav", audio)} if audio is not None else {"other": ("a.wav", b"")}
    answer = client.post(VOICES, data=form, files=files)
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["error"]["message"]
    assert [entry.name for entry in (tmp_path / "voices").iterdir()] == [".lock"]


def test_the_sixth_voice_does_not_fit(client: httpx.Client):
    for i in range(6):
        answer = client.post(VOICES, data={"name": f"v{i}"}, files={"audio": ("a.wav", tone_file(0.1))})
        assert answer.status_code == (201 if i < 5 else 409)
    assert answer.json()["error"]["code"] == "too_many_voices"


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path):
    (tmp_path / "voices").write_text("a file")
    with pytest.raises(SystemExit, match="--voices-dir"), serving(three_events, tmp_path):
        pass


def test_the_official_client_reads_errors(client: httpx.Client):
    with openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key="x", max_retries=0) as official:
        with pytest.raises(openai.BadRequestError) as error:
            official.audio.speech.create(model="tts-1", input="a", voice="nobody")
        assert (error.value.param, error.value.code) == ("voice", "unknown_voice")
        with pytest.raises(openai.BadRequestError, match="speed"):
            official.audio.speech.create(model="tts-1", input="a", voice="default", speed=2)
