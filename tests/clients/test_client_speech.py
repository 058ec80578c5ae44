"""The Python clients over OpenAI's endpoints and stored voices, and how both ask again."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_endpoints import serving, three_events
from fake_manager import SAMPLE_RATE, FakeManager, event, frames_of
from fake_speech_server import FakeServer, fake_speech_server, speech_answer, speech_events, tone_wav
from fastapi import HTTPException
from waiting import wait_for

from sglang_moss.clients import (
    AsyncMossClient,
    MossClient,
    Reference,
    ServerRefused,
    ServerUnreachable,
    Speech,
    SpeechChunk,
    UnusableAnswer,
    Voice,
    retrying,
)
from sglang_moss.clients.speech_request import SpeechSettings
from sglang_moss.server.speech.fields import SpeechFields

pytestmark = pytest.mark.wide

Asked = Callable[..., list[SpeechChunk]]


def speech(url: str, *args: Any, retries: int = 0, **settings: Any) -> list[SpeechChunk]:
    with MossClient(url, retries=retries) as client:
        return list(client.speech(*args, **settings))


def speech_async(url: str, *args: Any, retries: int = 0, **settings: Any) -> list[SpeechChunk]:
    async def run() -> list[SpeechChunk]:
        async with AsyncMossClient(url, retries=retries) as client:
            return [chunk async for chunk in client.speech(*args, **settings)]

    return asyncio.run(run())


def generate(url: str, retries: int) -> Speech:
    with MossClient(url, retries=retries) as client:
        return client.generate("[S1] Hi.")


def generate_async(url: str, retries: int) -> Speech:
    async def run() -> Speech:
        async with AsyncMossClient(url, retries=retries) as client:
            return await client.generate("[S1] Hi.")

    return asyncio.run(run())


both = pytest.mark.parametrize("spoken", [speech, speech_async])
either = pytest.mark.parametrize("asked", [generate, generate_async])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, FakeManager]]:
    with serving(three_events, tmp_path) as (client, manager):
        yield str(client.base_url), manager


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_speech_server() as fake:
        yield fake


@both
def test_speech_comes_in_chunks_that_are_the_whole(service: tuple[str, FakeManager], spoken: Asked):
    chunks = spoken(service[0], "Hi.")
    assert b"".join(chunk.pcm for chunk in chunks) == np.concatenate(list(map(frames_of, (100, 200, 300)))).tobytes()
    assert {chunk.sample_rate for chunk in chunks} == {SAMPLE_RATE}
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(0.72)


@both
def test_voices_by_name_and_clips_and_settings_reach_the_model(service: tuple[str, FakeManager], spoken: Asked):
    url, manager = service
    with MossClient(url) as client:
        client.add_voice("alice", tone_wav(SAMPLE_RATE), "Eins.")
    voices = {2: "alice", 1: Reference(tone_wav(9_600), "Zwei.")}
    spoken(url, "[S1] Hi.", voices, seed=3, max_seconds=2, normalize=False, instructions="Slowly.", top_k=None)
    (request,) = manager.requests
    assert request.text == "${instruction:Slowly.}[S1]Zwei.[S2]Eins.[S1]Hi."
    assert request.sampling_params["sampling_seed"] == 3
    assert request.sampling_params["max_new_tokens"] == 25
    assert "top_k" not in request.sampling_params
    assert len(request.audio_data) == 2


def test_every_setting_is_a_field_of_the_endpoint():
    assert set(SpeechSettings.__annotations__) <= set(SpeechFields.model_fields)


@both
def test_a_refusal_names_the_reason(service: tuple[str, FakeManager], spoken: Asked):
    with pytest.raises(ServerRefused, match=r"HTTP 400: .*nobody"):
        spoken(service[0], "Hi.", {1: "nobody"})
    with pytest.raises(TypeError, match="no such setting: sed"):
        spoken(service[0], "Hi.", sed=1)


@both
def test_a_failure_after_the_first_sound_is_told(tmp_path: Path, spoken: Asked):
    def script(_request: Any) -> Iterator[Any]:
        yield event(frames_of(100))
        yield HTTPException(503, "the codec is gone")

    with serving(script, tmp_path) as (client, manager):
        with pytest.raises(ServerRefused, match="the codec is gone"):
            spoken(str(client.base_url), "Hi.", retries=2)
        assert len(manager.requests) == 1  # what was heard is not said again


@both
def test_an_answer_of_another_kind_is_unusable(server: FakeServer, spoken: Asked):
    server.reply = lambda _body: (200, b'data: {"type": "other"}\n\n', {})
    with pytest.raises(UnusableAnswer, match="sample rate"):
        spoken(server.url, "Hi.")
    server.reply = lambda _body: (200, b'data: {"type": "other"}\n\n', {"X-Sample-Rate": "24000"})
    with pytest.raises(UnusableAnswer, match="no speech in it"):
        spoken(server.url, "Hi.")


@both
def test_events_without_the_last_are_unreachable(server: FakeServer, spoken: Asked):
    delta = b'data: {"type": "speech.audio.delta", "audio": "AAAA"}\n\n'
    server.reply = lambda _body: (200, delta, {"X-Sample-Rate": "24000"})
    with pytest.raises(ServerUnreachable, match="broke off"):
        spoken(server.url, "Hi.")


def test_leaving_a_stream_ends_its_generation(tmp_path: Path):
    def endless(_request: Any) -> Iterator[dict[str, Any]]:
        while True:
            yield event(frames_of(100))

    async def leave(url: str) -> None:
        async with AsyncMossClient(url) as client:
            stream = client.speech("Hi.")
            assert (await anext(stream)).seconds > 0
            await stream.aclose()
            await asyncio.to_thread(wait_for, lambda: len(manager.closed) == 2)

    with serving(endless, tmp_path, pause_seconds=0.01) as (http_client, manager):
        url = str(http_client.base_url)
        with MossClient(url) as client:
            stream = client.speech("Hi.")
            assert next(stream).seconds > 0
            stream.close()
            wait_for(lambda: len(manager.closed) == 1)
        asyncio.run(leave(url))


def test_voices_are_kept_told_and_forgotten(service: tuple[str, FakeManager], tmp_path: Path):
    clip = tmp_path / "clip.wav"
    clip.write_bytes(tone_wav(SAMPLE_RATE))

    async def with_asyncio(name: str) -> tuple[Voice, list[Voice]]:
        async with AsyncMossClient(service[0]) as client:
            added, found = await client.add_voice(name, clip), await client.voices()
            await client.remove_voice(name)
            return added, found

    with MossClient(service[0]) as client:
        alice = client.add_voice("alice", clip, "Good morning.")
        assert (alice.name, alice.text, alice.seconds) == ("alice", "Good morning.", 1.0)
        with pytest.raises(ServerRefused, match="HTTP 409"):
            client.add_voice("alice", clip)
        bob, found = asyncio.run(with_asyncio("b. o_b"))
        assert (bob.text, found) == (None, [alice, bob])
        assert client.voices() == [alice]
        client.remove_voice("alice")
        for name in ("alice", "../alice", "a/b"):
            with pytest.raises(ServerRefused, match="HTTP 404"):
                client.remove_voice(name)
        assert client.voices() == []


@either
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_when_it_says(server: FakeServer, asked: Callable[..., Speech], status: int):
    answers = iter([(status, b"{}", {"Retry-After": "0"})] * 2)
    spoken = json.dumps(speech_answer(n_frames=5)).encode()
    server.reply = lambda _body: next(answers, (200, spoken, {}))
    assert asked(server.url, 2).frames == 5
    assert len(server.bodies) == 3
    assert server.bodies[0] == server.bodies[2]


def add_voice(url: str, retries: int) -> Voice:
    with MossClient(url, retries=retries) as client:
        return client.add_voice("alice", b"clip")


def add_voice_async(url: str, retries: int) -> Voice:
    async def run() -> Voice:
        async with AsyncMossClient(url, retries=retries) as client:
            return await client.add_voice("alice", b"clip")

    return asyncio.run(run())


def remove_voice(url: str, retries: int) -> None:
    with MossClient(url, retries=retries) as client:
        client.remove_voice("alice")


def remove_voice_async(url: str, retries: int) -> None:
    async def run() -> None:
        async with AsyncMossClient(url, retries=retries) as client:
            await client.remove_voice("alice")

    asyncio.run(run())


def answer_by(monkeypatch: pytest.MonkeyPatch, reply: Callable[[], httpx.Response]) -> list[httpx.Request]:
    """Let `reply` stand for every connection; returns what will have been asked."""
    asked: list[httpx.Request] = []

    def handle(_transport: object, request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return reply()

    async def handle_async(transport: object, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return handle(transport, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_async)
    return asked


@pytest.mark.parametrize("change", [add_voice, add_voice_async, remove_voice, remove_voice_async])
@pytest.mark.parametrize(
    ("status", "headers", "times"),
    [
        (429, {"Retry-After": "0"}, 3),
        (503, {"Retry-After": "0"}, 3),
        (503, {}, 1),  # Envoy's, where a server dies
        (500, {"Retry-After": "0"}, 1),
        (502, {}, 1),
        (504, {}, 1),
    ],
)
def test_voices_are_changed_again_only_where_nothing_was_done(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str, int], Any],
    status: int,
    headers: dict[str, str],
    times: int,
):
    asked = answer_by(monkeypatch, lambda: httpx.Response(status, headers=headers))
    with pytest.raises(ServerRefused, match=f"HTTP {status}"):
        change("http://127.0.0.1:1", 2)
    assert len(asked) == times


@pytest.mark.parametrize("change", [add_voice, add_voice_async, remove_voice, remove_voice_async])
@pytest.mark.parametrize(
    ("kind", "times"),
    [(httpx.ConnectError, 3), (httpx.ConnectTimeout, 3), (httpx.ReadError, 1), (httpx.ReadTimeout, 1)],
)
def test_voices_are_changed_again_where_the_server_was_never_asked(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[str, int], Any], kind: type[httpx.RequestError], times: int
):
    def fail() -> httpx.Response:
        raise kind("no")

    asked = answer_by(monkeypatch, fail)
    monkeypatch.setattr(retrying, "_backoff", lambda _state: 0.0)
    with pytest.raises(ServerUnreachable):
        change("http://127.0.0.1:1", 2)
    assert len(asked) == times


@either
def test_retries_come_to_an_end(server: FakeServer, asked: Callable[..., Speech]):
    server.reply = lambda _body: (429, b'{"error": "full"}', {"Retry-After": "0"})
    with pytest.raises(ServerRefused, match="HTTP 429: full") as caught:
        asked(server.url, 3)
    assert len(server.bodies) == 4
    assert caught.value.retry_after_s == 0


@either
@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_what_will_not_pass_is_asked_once(server: FakeServer, asked: Callable[..., Speech], status: int):
    server.status, server.answer = status, b"{}"
    with pytest.raises(ServerRefused):
        asked(server.url, 5)
    assert len(server.bodies) == 1


def test_an_answer_that_takes_too_long_is_not_asked_for_again(server: FakeServer):
    server.waits = True
    with MossClient(server.url, timeout_s=0.1, retries=3) as client, pytest.raises(ServerUnreachable):
        client.generate("[S1] Hi.")
    wait_for(lambda: server.bodies)  # the server may read it later than the client gives up
    assert len(server.bodies) == 1


def test_a_server_that_starts_late_is_reached(monkeypatch: pytest.MonkeyPatch):
    late = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler, bind_and_activate=False)
    late.server_bind()

    def start(_state: object) -> float:
        late.server_activate()
        threading.Thread(target=late.handle_request).start()
        return 0.0

    monkeypatch.setattr(retrying, "_backoff", start)
    with (
        late,
        MossClient(f"http://127.0.0.1:{late.server_port}", retries=1) as client,
        pytest.raises(ServerRefused, match="HTTP 501"),
    ):
        client.generate("[S1] Hi.")


def test_a_stream_is_begun_again_only_before_its_first_chunk(server: FakeServer):
    async def collected(chunks: AsyncIterator[SpeechChunk]) -> list[SpeechChunk]:
        return [chunk async for chunk in chunks]

    cut = speech_events([1, 1])[:1]
    server.events = cut
    with MossClient(server.url, retries=3) as client, pytest.raises(ServerUnreachable, match="broke off"):
        list(client.stream("[S1] Hi."))
    assert len(server.bodies) == 1
    server.status, server.answer = 503, b"{}"

    async def asked_again() -> None:
        async with AsyncMossClient(server.url, retries=1) as client:
            with pytest.raises(ServerRefused):
                await collected(client.stream("[S1] Hi."))

    asyncio.run(asked_again())
    assert len(server.bodies) == 3
