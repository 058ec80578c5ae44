"""Streaming with the Python clients, and the client for asyncio: chunks, order, and how they fail."""

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from fake_speech_server import END, FakeServer, fake_speech_server, speech_events, tone_wav
from hypothesis import given
from hypothesis import strategies as st
from nobody import nobody

from sglang_moss.clients import (
    AsyncMossClient,
    ClientError,
    MossClient,
    Reference,
    ServerRefused,
    ServerUnreachable,
    SpeechChunk,
    UnusableAnswer,
)
from sglang_moss.clients.events import EventReader

Stream = Callable[[str], list[SpeechChunk]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_speech_server() as fake:
        yield fake


async def collected(chunks: AsyncIterator[SpeechChunk]) -> list[SpeechChunk]:
    return [chunk async for chunk in chunks]


def stream(url: str) -> list[SpeechChunk]:
    with MossClient(url, retries=0) as client:
        return list(client.stream("[S1] Hi.", [Reference(b"clip")], seed=3))


def stream_async(url: str) -> list[SpeechChunk]:
    async def run() -> list[SpeechChunk]:
        async with AsyncMossClient(url, retries=0) as client:
            return await collected(client.stream("[S1] Hi.", [Reference(b"clip")], seed=3))

    return asyncio.run(run())


both = pytest.mark.parametrize("streamed", [stream, stream_async])


def pcm(wav: bytes) -> bytes:
    with wave.open(io.BytesIO(wav)) as file:
        return file.readframes(file.getnframes())


@both
def test_chunks_come_in_order_with_their_lengths(server: FakeServer, streamed: Stream):
    chunks = streamed(server.url)
    assert [chunk.seconds for chunk in chunks] == [0.08, 0.08, 0.24]
    assert [chunk.pcm for chunk in chunks] == [pcm(tone_wav(n * 1_920)) for n in (1, 1, 3)]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "stop"]
    assert {chunk.sample_rate for chunk in chunks} == {24_000}
    assert chunks[-1].meta["audio_frames"] == 5


@both
def test_a_stream_asks_for_what_a_whole_answer_asks_for(server: FakeServer, streamed: Stream):
    streamed(server.url)
    with MossClient(server.url) as client:
        client.generate("[S1] Hi.", [Reference(b"clip")], seed=3)
    assert server.bodies[0] == server.bodies[1] | {"stream": True}
    assert server.headers[0]["content-type"] == "application/json"


def test_a_chunk_is_there_before_the_rest_is_made(server: FakeServer):
    server.waits = True
    with MossClient(server.url) as client:
        chunks = client.stream("[S1] Hi.")
        assert next(chunks).seconds == 0.08
        server.release.set()
        assert [chunk.seconds for chunk in chunks] == [0.08, 0.24]


@both
@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        ({"error": {"message": "text is missing", "type": "invalid_request_error", "code": 400}}, 400, "text is"),
        ({"error": {"message": "broken"}}, 500, "broken"),
        (
            {"text": "", "meta_info": {"finish_reason": {"type": "abort", "message": "no", "status_code": 503}}},
            503,
            "no",
        ),
        ({"text": "", "meta_info": {"finish_reason": {"type": "abort", "message": None}}}, 500, "aborted"),
        ({"error": {"message": "full", "type": "server_error", "code": "x", "status_code": 429}}, 429, "full"),
        ({"error": {"message": "no", "type": "invalid_request_error", "code": "bad_text"}}, 400, "no"),
    ],
)
def test_an_event_that_tells_of_a_failure_is_a_refusal(
    server: FakeServer, streamed: Stream, event: dict[str, Any], status: int, message: str
):
    server.events = [speech_events([1, 1])[0], b"data: " + json.dumps(event).encode() + b"\n\n", END]
    with pytest.raises(ServerRefused, match=message) as caught:
        streamed(server.url)
    assert caught.value.status == status


@both
def test_a_stream_that_is_refused_at_once_is_a_refusal(server: FakeServer, streamed: Stream):
    server.status, server.answer = 400, b'{"error": {"message": "text is missing"}}'
    with pytest.raises(ServerRefused, match="HTTP 400: text is missing"):
        streamed(server.url)


@both
def test_a_stream_without_its_end_is_unreachable(server: FakeServer, streamed: Stream):
    server.events = server.events[:-1]
    with pytest.raises(ServerUnreachable, match="broke off"):
        streamed(server.url)


@both
def test_a_stream_without_a_finish_reason_is_cut_off_though_a_proxy_ends_it_well(server: FakeServer, streamed: Stream):
    server.events = [*server.events[:-2], END]
    with pytest.raises(ServerUnreachable, match="broke off"):
        streamed(server.url)


@both
def test_the_voice_is_told_to_proxies_and_is_the_same_for_the_same_clip(server: FakeServer, streamed: Stream):
    streamed(server.url)
    with MossClient(server.url) as client:
        client.generate("[S1] Another text.", [Reference(b"clip", "So."), Reference(b"other", "Oh.")])
        client.generate("[S1] Hi.", [Reference(b"other")])
        client.generate("[S1] Hi.")
    first, again, other, none = (headers.get("x-moss-voice") for headers in server.headers)
    assert first == again
    assert other not in (None, first)
    assert none is None


@both
@pytest.mark.parametrize(
    "event", [b"not JSON", b'{"text": "hello"}', b'{"text": "@@", "meta_info": {"audio_seconds": 1}}']
)
def test_an_event_without_speech_is_an_error(server: FakeServer, streamed: Stream, event: bytes):
    server.events = [b"data: " + event + b"\n\n", END]
    with pytest.raises(UnusableAnswer):
        streamed(server.url)


@both
def test_no_server_is_unreachable(streamed: Stream):
    with nobody() as url, pytest.raises(ServerUnreachable):
        streamed(url)


def test_arguments_that_cannot_work_are_refused_before_anything_is_sent(server: FakeServer):
    with MossClient(server.url) as client, pytest.raises(FileNotFoundError):
        client.stream("[S1] Hi.", [Reference("/nowhere/a.wav")])
    assert server.bodies == []


def run_async(url: str, use: Callable[[AsyncMossClient], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with AsyncMossClient(url, retries=0) as client:
            return await use(client)

    return asyncio.run(run())


def test_whole_answers_are_the_same_with_asyncio(server: FakeServer):
    with MossClient(server.url) as client:
        speech = client.generate("[S1] Hi.", seed=1)
    assert run_async(server.url, lambda client: client.generate("[S1] Hi.", seed=1)) == speech
    assert server.bodies[0] == server.bodies[1]


def test_failures_are_the_same_with_asyncio(server: FakeServer):
    server.status, server.answer = 503, b'{"message": "busy"}'
    with pytest.raises(ServerRefused, match="HTTP 503: busy"):
        run_async(server.url, lambda client: client.generate("[S1] Hi."))
    with nobody() as url, pytest.raises(ServerUnreachable):
        run_async(url, lambda client: client.generate("[S1] Hi."))


def test_more_than_a_hundred_requests_are_under_way_at_once(server: FakeServer):
    server.waits = True  # a client with httpx's own limit would never send the last of them

    async def ask(client: AsyncMossClient) -> list[Any]:
        asking = [asyncio.create_task(client.generate(f"[S1] {i}.")) for i in range(120)]
        async with asyncio.timeout(60):
            while len(server.bodies) < len(asking):
                await asyncio.sleep(0.02)
        server.release.set()
        return await asyncio.gather(*asking)

    assert {speech.frames for speech in run_async(server.url, ask)} == {5}


@given(st.data())
def test_events_do_not_depend_on_how_their_bytes_are_cut(data: st.DataObject):
    datas = data.draw(st.lists(st.binary(min_size=1).filter(lambda d: not {10, 13} & set(d) and d == d.strip())))
    datas = [d for d in datas if d != b"[DONE]"]
    raw = b"".join(b"data: " + d + b"\n\n" for d in datas) + b": a comment\n\n" + END
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    reader, found = EventReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += reader.feed(raw[start:end])
    assert found == datas
    reader.check_ended()


@pytest.mark.parametrize("raw", [b"", b"data: 1\n\n", END[:-3]])
def test_bytes_without_the_end_are_an_error(raw: bytes):
    reader = EventReader()
    reader.feed(raw)
    with pytest.raises(ClientError):
        reader.check_ended()


def test_an_end_without_audio_is_a_chunk_of_no_samples():
    meta = {"audio_seconds": 0.32, "sample_rate": 24_000, "finish_reason": {"type": "length"}}
    chunk = SpeechChunk.from_event(json.dumps({"text": "", "meta_info": meta}).encode())
    assert (chunk.pcm, chunk.seconds, chunk.sample_rate, chunk.finish_reason) == (b"", 0.0, 24_000, "length")
