"""The endpoints on a real HTTP server over a stand-in for SGLang: what leaves when, and what happens when it breaks."""

import base64
import http.client
import io
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import openai
import pytest
import soundfile
from fake_endpoints import leaving, serving, three_events
from fake_manager import FRAME_SAMPLES, SAMPLE_RATE, STOP, event, frames_of
from fastapi import HTTPException
from sound_files import tone_file
from waiting import wait_for

from sglang_moss.errors import BadReference, BadRequest, BadText, MossError, ServerBusy
from sglang_moss.request.record import current_record
from sglang_moss.server.speech.responses import events_of
from sglang_moss.tokenizer_answers import _failures

pytestmark = pytest.mark.wide

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
    assert done == {"type": "speech.audio.done", "usage": usage, "finish_reason": "stop"}


@pytest.mark.parametrize("asked", [{}, {"stream": False}, {"stream_format": "sse", "response_format": "pcm"}])
def test_an_answer_names_the_seed_that_repeats_it(tmp_path: Path, asked: dict[str, Any]):
    with serving(three_events, tmp_path) as (client, manager):
        named = [
            client.post(SPEECH, json={"input": "a", **asked, **seed}).headers["x-seed"]
            for seed in ({}, {}, {"seed": 7})
        ]
    used = [str(request.sampling_params["sampling_seed"]) for request in manager.requests]
    assert named == used
    assert named[2] == "7"
    assert named[0] != named[1]


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3", "opus", "aac", "pcm"])
def test_a_client_that_does_not_stream_gets_a_whole_file(tmp_path: Path, audio_format: str, reason: str):
    script = [event(frames_of(100)), event(frames_of(200), {"type": reason})]
    body = {"input": "a", "response_format": audio_format, "stream": False}
    with serving(lambda _: script, tmp_path) as (client, _):
        answer = client.post(SPEECH, json=body)
    assert answer.headers["content-length"] == str(len(answer.content))
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["x-finish-reason"] == reason
    assert answer.headers["x-sample-rate"] == str(SAMPLE_RATE)
    if audio_format in ("wav", "flac"):
        samples, _rate = soundfile.read(io.BytesIO(answer.content), dtype="int16")
        np.testing.assert_array_equal(samples, np.concatenate([frames_of(100), frames_of(200)]))


@pytest.mark.parametrize(
    ("fields", "option", "is_whole"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"stream": None}, True, True),
        ({"stream": True}, False, False),
        ({"stream": True}, True, False),
        ({"stream": False}, False, True),
        ({"stream": "false"}, False, True),
        ({"stream_format": "audio"}, False, False),
    ],
)
def test_who_streams(tmp_path: Path, fields: dict[str, Any], option: bool, is_whole: bool):
    with serving(three_events, tmp_path, whole_answers=option) as (client, _):
        answer = client.post(SPEECH, json={"input": "a", "response_format": "wav", **fields})
        assert ("content-length" in answer.headers) == is_whole
        events = client.post(SPEECH, json={"input": "a", "stream_format": "SSE", "response_format": "pcm"})
        assert events.headers["content-type"].startswith("text/event-stream")
        both = client.post(SPEECH, json={"input": "a", "stream_format": "sse", "stream": False})
        assert (both.status_code, both.json()["error"]["param"]) == (400, "stream")


@pytest.mark.parametrize("name", ["MossError", "HTTPException", "BadText"])
def test_a_whole_answer_that_fails_late_is_an_ordinary_error(tmp_path: Path, name: str):
    failure, status, _param = FAILURES[name]
    with serving(lambda _: [event(frames_of(1)), failure], tmp_path) as (client, manager):
        answer = client.post(SPEECH, json={"input": "a", "stream": False})
        assert answer.status_code == status
        assert answer.json()["error"]["message"]
        wait_for(lambda: len(manager.closed) == 1)


def test_a_client_that_does_not_wait_for_its_whole_answer_ends_the_generation(tmp_path: Path):
    def endless(_request: Any) -> Iterator[dict[str, Any]]:
        yield from (event(frames_of(i % 1000)) for i in itertools.count())

    with serving(endless, tmp_path, pause_seconds=0.02) as (client, manager):
        with leaving(client, "POST", SPEECH, json={"input": "a", "stream": False}):
            wait_for(lambda: manager.requests)
            assert not manager.closed
        wait_for(lambda: len(manager.closed) == 1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("speed", ["0.5", 1.25, 2])
def test_speed_stretches_what_is_spoken(tmp_path: Path, speed: float | str, stream: bool):
    with serving(lambda _: [event(frames_of(100, 25)), event(frames_of(100, 25), STOP)], tmp_path) as (client, _):
        body = {"input": "a", "response_format": "pcm", "speed": speed, "stream": stream}
        answer = client.post(SPEECH, json=body)
    assert len(answer.content) / 2 / SAMPLE_RATE == pytest.approx(4 / float(speed), abs=0.05)


def test_events_that_do_not_come_are_waited_for_with_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    may_go_on = threading.Event()

    def script(_request: Any) -> Iterator[Any]:
        for level in (100, 200):
            while not may_go_on.is_set():
                yield event(frames_of(0, 0))
            may_go_on.clear()
            yield event(frames_of(level), STOP if level == 200 else None)

    monkeypatch.setattr(events_of, "__defaults__", (0.1,))
    body = {"input": "a", "response_format": "pcm", "stream_format": "sse"}
    with (
        serving(script, tmp_path, pause_seconds=0.01) as (client, manager),
        client.stream("POST", SPEECH, json=body) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line)
        kinds = []
        for line in lines:
            kinds.append(line[:5])
            if kinds.count(": wai") in (2, 5):
                may_go_on.set()
        assert kinds[:2] == [": wai"] * 2
        assert kinds.count("data:") == 3
        assert kinds[-1] == "data:"
        wait_for(lambda: len(manager.closed) == 1)


def test_a_failure_after_a_comment_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events_of, "__defaults__", (0.05,))
    may_fail = threading.Event()
    body = {"input": "a", "stream_format": "sse"}
    with (
        serving(lambda _: [may_fail, MossError("the codec failed")], tmp_path) as (client, _),
        client.stream("POST", SPEECH, json=body) as answer,
    ):
        assert answer.status_code == 200
        lines = (line for line in answer.iter_lines() if line)
        comments = [next(lines)]
        may_fail.set()
        *more, last = lines
        assert {*comments, *more} == {": waiting"}
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the codec failed"


def test_a_client_that_leaves_between_comments_ends_the_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events_of, "__defaults__", (0.05,))

    def silent(_request: Any) -> Iterator[dict[str, Any]]:
        yield from (event(frames_of(0, 0)) for _ in itertools.count())

    body = {"input": "a", "stream_format": "sse"}
    with serving(silent, tmp_path, pause_seconds=0.02) as (client, manager):
        with client.stream("POST", SPEECH, json=body) as answer:
            assert next(answer.iter_lines()) == ": waiting"
        wait_for(lambda: len(manager.closed) == 1)


USUAL: dict[str, dict[str, Any]] = {
    "open-webui": {"voice": "", "model": "tts-1", "language": "en", "user": "u"},
    "vllm-omni": {"task_type": "Base", "language": "English", "stream": True, "response_format": "PCM"},
    "kokoro": {"lang_code": "a", "speed": 1, "stream": False, "response_format": "wav"},
    "elevenlabs": {"output_format": "mp3_44100_128", "seed": "7"},
    "numbers as text": {"speed": "1.0", "seed": "7", "temperature": "0.9", "top_k": "50", "max_seconds": "3"},
    "numbers with fractions": {"seed": 7.0, "top_k": 50.0, "chunk_frames": 4.0, "first_frames": 2.0},
    "ogg": {"response_format": "ogg"},
    "names for nothing": {"voice": {"id": "default", "name": "Default"}, "normalize": None, "instructions": None},
}


@pytest.mark.parametrize("name", USUAL)
def test_fields_of_usual_clients_are_taken(client: httpx.Client, name: str):
    answer = client.post(SPEECH, json={"input": "a", **USUAL[name]})
    assert answer.status_code == 200, answer.text


FORMATS = {"MP3": "audio/mpeg", "Wav": "audio/wav", "ogg": "audio/ogg", "ogg_opus": "audio/ogg", "wave": "audio/wav",
           "mp3_44100_128": "audio/mpeg", "pcm_24000": "audio/pcm", "opus_48000_64": "audio/ogg"}  # fmt: skip


@pytest.mark.parametrize("field", ["response_format", "output_format"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_several_names(client: httpx.Client, name: str, field: str):
    assert client.post(SPEECH, json={"input": "a", field: name}).headers["content-type"] == FORMATS[name]


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("audio_format", ["pcm", "wav", "mp3", "opus", "aac", "flac"])
def test_sound_is_heard_before_the_next_is_made(tmp_path: Path, audio_format: str, stream_format: str):
    may_go_on = threading.Event()
    script = [event(frames_of(100, 25)), may_go_on, event(frames_of(200), STOP)]
    body = {"input": "a", "response_format": audio_format, "stream_format": stream_format}
    with (
        serving(lambda _: script, tmp_path) as (client, _),
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
    "ServerBusy": (ServerBusy("the codec has too much to do", 1.5), 503, None),
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


BUSY = ServerBusy("the codec has too much to do", 1.5)


@pytest.mark.parametrize(
    "refusal",
    [BUSY, *_failures(SimpleNamespace(rid="r"), set(), BUSY)],
    ids=["raised", "as a stream says it"],
)
def test_who_comes_to_a_busy_codec_is_told_when_to_come_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: Any
):
    def busy(_request: Any) -> Iterator[Any]:
        current_record().retry_after = 1.5  # as the references' backlog does
        yield refusal

    with serving(busy, tmp_path) as (client, _):
        answer = client.post(SPEECH, json={"input": "a"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert answer.json()["error"]["code"] == "server_busy"
    assert not caplog.records  # it is no fault of the server's


@pytest.mark.parametrize(
    "error",
    [BadText("text: no", "unknown_speaker"), BadReference("reference 1: no", "clip_silent"), BadText("text: no")],
)
def test_a_stream_that_is_refused_keeps_the_code(tmp_path: Path, error: BadRequest):
    [last] = _failures(SimpleNamespace(rid="r"), set(), error)
    assert last["meta_info"]["finish_reason"]["code"] == error.code
    with serving(lambda _: [last], tmp_path) as (client, _):
        answer = client.post(SPEECH, json={"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, error.code)


@pytest.mark.parametrize(
    ("body", "code"), [("{", "bad_request"), ('{"input": "a", "colour": 1}', "bad_setting")], ids=["no JSON", "field"]
)
def test_what_is_refused_unread_has_a_code(tmp_path: Path, body: str, code: str):
    with serving(lambda _: [], tmp_path) as (client, _):
        answer = client.post(SPEECH, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


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
            with leaving(client, "POST", SPEECH, json=body):
                wait_for(lambda: manager.requests)
                assert not manager.closed
        wait_for(lambda: len(manager.closed) == 1)


BAD_BODIES: dict[str, tuple[Any, str, str | None]] = {
    "unknown fields": ({"input": "a", "foo": 1, "bar": 2}, "foo, bar", "foo"),
    "unknown inner field": ({"input": "a", "references": [{"audio": "x", "path": "/"}]}, "path", "references.0.path"),
    "unknown format": ({"input": "a", "response_format": "midi"}, "mp3", "response_format"),
    "a number as text": ({"input": 3}, "string", "input"),
    "text as a number": ({"input": "a", "temperature": "hot"}, "number", "temperature"),
    "half a character": ({"input": "a\ud800"}, "whole characters", None),
    "a list": ([1], "object", None),
    "nothing": (None, "object", None),
    "a voice without a name": ({"input": "a", "voice": {"language": "en"}}, '{"id": NAME}', "voice"),
    "a list of voices": ({"input": "a", "voice": ["alice"]}, "string", "voice"),
    "a voice as a number": ({"input": "a", "voices": {"S1": 3}}, "string", "voices.S1"),
    "a speaker as a list": ({"dialogue": [{"speaker": [1], "text": "a"}]}, "string", "dialogue.0.speaker"),
    "a fraction": ({"input": "a", "seed": 1.5}, "integer", "seed"),
    "half a switch": ({"input": "a", "stream": "maybe"}, "boolean", "stream"),
    "the name of another route": ({"input": "a", "max_new_tokens": 5}, "send max_seconds", "max_new_tokens"),
}
TYPE_NAMES = ("constrained", "VoiceId", "str]", "Input should", "dictionary", "pydantic", "function-")


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_by_name(client: httpx.Client, name: str):
    body, word, param = BAD_BODIES[name]
    answer = client.post(SPEECH, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert word in error["message"]
    assert not any(name in error["message"] for name in TYPE_NAMES)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_a_body_without_its_type_hears_which_to_send(client: httpx.Client):
    answer = client.post(SPEECH, content=b'{"input": "a"}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_no_advice_names_a_field_of_another_route(tmp_path: Path):
    end = {"type": "abort", "message": "no audio: raise max_new_tokens", "status_code": 400}
    with serving(lambda _: [event(frames_of(0, 0), end)], tmp_path) as (client, _):
        assert client.post(SPEECH, json={"input": "a"}).json()["error"]["message"] == "no audio: raise max_seconds"


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
        names = [{"id": "Alice", "name": "Alice"}]
        assert client.get(VOICES).json() == {"object": "list", "data": [voice], "voices": names}
        assert client.get(f"{VOICES}/alice").json() == voice
        assert client.get(f"{VOICES}/alice/clip").content == tone_file(0.5)
        assert client.post(SPEECH, json={"input": "a", "voice": "Alice"}).status_code == 200
        assert manager.requests[0].audio_data == [tone_file(0.5)]
        assert client.post(VOICES, data=form, files={"audio": ("a.wav", tone_file(0.5))}).status_code == 409
        assert client.delete(f"{VOICES}/Alice").status_code == 200
        gone = client.delete(f"{VOICES}/Alice")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "unknown_voice")
        assert client.post(SPEECH, json={"input": "a", "voice": "Alice"}).json()["error"]["param"] == "voice"
    with serving(three_events, tmp_path) as (client, _):
        assert client.get(VOICES).json()["data"] == []


@pytest.mark.parametrize("name", ["小明", "Jürgen", "Dr. No", "alice"])
def test_a_voice_of_any_script_is_shown_fetched_replaced_and_removed(tmp_path: Path, name: str):
    url = f"{VOICES}/{quote(name)}"
    with serving(three_events, tmp_path) as (client, manager):
        for path in (url, f"{url}/clip"):
            missing = client.get(path)
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_voice")
        made = client.put(url, files={"audio": ("a.wav", tone_file(0.5))}, data={"text": "Eins."})
        assert (made.status_code, made.json()["text"]) == (201, "Eins.")
        again = client.put(url, files={"file": ("a.wav", tone_file(0.6))}, data={"ref_text": "Zwei."})
        assert again.status_code == 200
        assert client.get(url).json() == again.json()
        assert again.json()["text"] == "Zwei."
        clip = client.get(f"{url}/clip")
        assert clip.content == tone_file(0.6)
        assert clip.headers["x-content-type-options"] == "nosniff"
        assert client.post(SPEECH, json={"input": "a", "voice": name}).status_code == 200
        assert manager.requests[-1].audio_data == [tone_file(0.6)]
        bad = client.put(url, files={"audio": ("a.wav", b"RIFF")})
        assert bad.status_code == 400
        assert client.get(url).json() == again.json()
        assert client.delete(url).json()["id"] == name
        assert client.get(VOICES).json()["voices"] == []


@pytest.mark.parametrize("file", ["audio", "audio_sample", "file"])
@pytest.mark.parametrize("text", ["text", "ref_text"])
def test_uploads_have_the_names_of_usual_clients(client: httpx.Client, file: str, text: str):
    form = {"name": "v", text: "Good day.", "consent": "yes"}
    answer = client.post(VOICES, data=form, files={file: ("a.wav", tone_file(0.5))})
    assert (answer.status_code, answer.json()["text"]) == (201, "Good day.")


BAD_UPLOADS: dict[str, tuple[dict[str, str], bytes | None, str]] = {
    "no audio": ({"name": "a"}, None, "audio"),
    "no name": ({}, tone_file(0.5), "name"),
    "not audio": ({"name": "a"}, b"RIFF", "audio"),
    "empty": ({"name": "a"}, b"", "audio"),
    "too short": ({"name": "a"}, tone_file(0.07), "audio"),
    "too long": ({"name": "a"}, tone_file(60.1), "audio"),
    "bad name": ({"name": "../a"}, tone_file(0.5), "name"),
    "default": ({"name": "default"}, tone_file(0.5), "name"),
    "tags": ({"name": "a", "text": "[S1] a [S2] b"}, tone_file(0.5), "text"),
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
            official.audio.speech.create(model="tts-1", input="a", voice="default", speed=4)
