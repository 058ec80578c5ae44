"""Who is let in: places, rate, and the bounds of a body, each by itself and through the gate in front of an app."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sglang_moss.request import preparation
from sglang_moss.request.record import RequestRecord, current_record, open_record
from sglang_moss.server.errors import QueueFull, RateLimited, ShuttingDown
from sglang_moss.server.gate.access_log import AccessLog
from sglang_moss.server.gate.admission import Admission
from sglang_moss.server.gate.gate import Gate, Limits
from sglang_moss.server.gate.rate_limit import RateLimit

GENERATE, SPEECH, VOICES = "/generate", "/v1/audio/speech", "/v1/audio/voices"
PATHS = (GENERATE, SPEECH, VOICES)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spoken() -> RequestRecord:
    record = RequestRecord()
    record.take({"meta_info": {"id": "a", "audio_seconds": 1.0, "audio_frames": 12}})
    return record


def test_places_are_taken_until_there_are_none_and_given_back_once():
    admission = Admission(3)
    first, second, third = (admission.ticket(RequestRecord()) for _ in range(3))
    first.claim(1)
    first.claim(2)  # altogether
    admission.check_place()
    second.claim(1)
    with pytest.raises(QueueFull):
        admission.check_place()
    with pytest.raises(QueueFull):
        third.claim(1)
    first.release()
    first.release()
    third.claim(2)
    with pytest.raises(QueueFull):
        second.claim(2)
    assert admission.n_requests == 2


def test_a_batch_larger_than_the_server_is_taken_by_an_idle_one():
    admission = Admission(2)
    alone = admission.ticket(RequestRecord())
    alone.claim(1)
    alone.claim(64)
    other = admission.ticket(RequestRecord())
    other.claim(0)
    with pytest.raises(QueueFull):
        other.claim(1)


def test_the_wait_is_what_the_last_ends_say():
    clock = Clock()
    admission = Admission(1, clock)

    def wait(n: int = 1) -> int | None:
        with pytest.raises(QueueFull) as error:
            admission.ticket(RequestRecord()).claim(n)
        return error.value.retry_after

    admission.ticket(RequestRecord()).claim(1)
    assert wait() == 10  # nothing has ended
    for _ in range(4):
        done = admission.ticket(spoken())
        done.release()  # had no place
    assert wait() == 10
    for _ in range(4):  # one each 3 seconds
        admission.release(0, 1, 0)
        clock.now += 3
    assert wait() == 3
    assert wait(5) == 15
    clock.now += 10_000
    assert wait() == 300


def test_a_closed_server_says_how_long_it_has():
    clock = Clock()
    admission = Admission(1, clock)
    admission.check_open()
    admission.close(30)
    clock.now += 10.5
    with pytest.raises(ShuttingDown) as error:
        admission.check_open()
    assert error.value.retry_after == 20


def test_a_client_may_ask_so_often_and_others_do_not_mind():
    clock = Clock()
    limit = RateLimit(3, clock)
    for _ in range(3):
        limit.take("a")
    for _ in range(5):  # refusals are not counted
        with pytest.raises(RateLimited) as error:
            limit.take("a")
        assert error.value.retry_after == 20
    limit.take("b")
    clock.now += 19.9
    with pytest.raises(RateLimited):
        limit.take("a")
    clock.now += 0.1
    limit.take("a")
    clock.now += 60
    for _ in range(3):
        limit.take("a")


def test_clients_that_are_quiet_are_forgotten():
    clock = Clock()
    limit = RateLimit(1, clock)
    for i in range(1000):
        limit.take(f"{i}")
        clock.now += 1
    assert len(limit._full_at) <= 61


def application(
    admission: Admission,
    seen: list[bytes],
    rate_limit: RateLimit | None = None,
    go_on: asyncio.Event | None = None,
    **limits: Any,
) -> Any:
    """An app that reads its body and streams three pieces, behind the gate."""
    app = FastAPI()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"1"
        if go_on is not None:
            await go_on.wait()
        yield b"2"
        yield b"3"

    async def echo(request: Request) -> StreamingResponse:
        seen.append(await request.body())
        claim = current_record().claim
        assert claim is not None
        if seen[-1].startswith(b"batch"):
            claim(3)
        return StreamingResponse(pieces())

    for path in PATHS:
        app.add_api_route(path, echo, methods=["POST"])
    app.add_api_route(VOICES, lambda: "a", methods=["GET"])
    merged = {"body_bytes": 100, "voice_bytes": 50, "body_seconds": 60.0, **limits}
    app.user_middleware.append(Middleware(Gate, admission, rate_limit, Limits(**merged)))
    return AccessLog(app, None, writes=False)


def asked(app: Any, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await ask(client)

    return asyncio.run(run())


async def until_full(admission: Admission) -> None:
    async with asyncio.timeout(60):
        with contextlib.suppress(QueueFull):
            while True:
                admission.check_place()
                await asyncio.sleep(0)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, whose shape is that of every path."""
    error = answer.json()["error"]
    assert isinstance(error["message"], str)
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_its_bound_gets_413_and_reaches_no_route(path: str, announced: bool):
    seen: list[bytes] = []
    most = 50 if path == VOICES else 100

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        async def flood(n: int) -> AsyncIterator[bytes]:
            for _ in range(n):
                yield b"a"

        return [await client.post(path, content=b"a" * n if announced else flood(n)) for n in (most, most + 1)]

    admission = Admission(1)
    fits, beyond = asked(application(admission, seen), ask)
    assert (fits.status_code, fits.content, len(seen)) == (200, b"123", 1)
    assert beyond.status_code == 413
    assert str(most) in error_of(beyond)["message"]
    assert admission.n_requests == 0
    admission.check_place()


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_does_not_come_gets_408_and_takes_no_place(path: str):
    seen: list[bytes] = []
    admission = Admission(1)

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        async def slow() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(0.1)
            admission.check_place()
            await asyncio.sleep(30)
            yield b"b"

        return await client.post(path, content=slow())

    answer = asked(application(admission, seen, body_seconds=0.3), ask)
    assert (answer.status_code, seen) == (408, [])
    assert "0.3 s" in error_of(answer)["message"]


def test_beyond_the_places_requests_for_speech_get_429_and_others_are_served():
    async def run() -> None:
        go_on = asyncio.Event()
        admission = Admission(2)
        app = application(admission, [], go_on=go_on)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            running = [asyncio.create_task(client.post(GENERATE, content=b"a")) for _ in range(2)]
            await until_full(admission)
            for path in (GENERATE, SPEECH):
                answer = await client.post(path, content=b"a")
                assert answer.status_code == 429
                assert int(answer.headers["retry-after"]) >= 1
                error = error_of(answer)
                assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
            assert (await client.get(VOICES)).status_code == 200
            go_on.set()
            assert [(await task).content for task in running] == [b"123"] * 2
            assert (await client.post(SPEECH, content=b"a")).status_code == 200

    asyncio.run(run())


def test_a_batch_counts_all_of_its_texts():
    async def run() -> None:
        go_on = asyncio.Event()
        admission = Admission(3)
        app = application(admission, [], go_on=go_on)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            running = asyncio.create_task(client.post(GENERATE, content=b"batch"))
            await until_full(admission)
            assert (await client.post(GENERATE, content=b"a")).status_code == 429
            go_on.set()
            assert (await running).status_code == 200

    asyncio.run(run())


def test_a_place_is_free_once_the_answer_has_left_whatever_the_app_does_then():
    async def run() -> None:
        admission = Admission(1)
        sleeps = asyncio.Event()

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            with pytest.raises(QueueFull):
                admission.check_place()
            await send({"type": "http.response.body", "body": b"a"})
            sleeps.set()
            await asyncio.sleep(60)

        await assert_free_after(app, admission, sleeps, leaves=False)

    asyncio.run(run())


def test_a_place_is_free_once_the_client_has_left():
    async def run() -> None:
        admission = Admission(1)
        sleeps = asyncio.Event()

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            assert (await receive())["type"] == "http.disconnect"
            sleeps.set()
            await asyncio.sleep(60)

        await assert_free_after(app, admission, sleeps, leaves=True)

    asyncio.run(run())


def test_bodies_fill_the_server_until_their_requests_leave():
    admission = Admission(9, max_bytes=10)
    first, second = admission.ticket(RequestRecord()), admission.ticket(RequestRecord())
    first.hold(6)
    second.hold(4)
    with pytest.raises(QueueFull):
        second.hold(1)
    first.release()
    first.hold(100)  # nobody waits for the rest of it
    second.hold(6)
    with pytest.raises(QueueFull):
        second.hold(1)


@pytest.mark.parametrize("path", ["/encode", "/v1/detokenize", "/api/generate"])
def test_what_the_model_cannot_do_is_not_there(path: str):
    answer = asked(application(Admission(1), []), lambda client: client.post(path, json={}))
    assert answer.status_code == 404
    assert "speaks" in answer.json()["error"]["message"]


def test_no_websocket_is_opened():
    app = FastAPI()

    @app.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        await websocket.accept()

    limits = Limits(body_bytes=10, voice_bytes=10, body_seconds=60)
    gate = Gate(app, Admission(1), None, limits)
    with pytest.raises(WebSocketDisconnect), TestClient(gate).websocket_connect("/v1/realtime"):
        pass


def test_requests_are_prepared_in_one_order_and_end_their_preparation_however_they_end(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(preparation, "_LONGEST_S", 60.0)
    begun: list[int] = []
    may_go = [asyncio.Event() for _ in range(6)]

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        number = int(scope["query_string"])
        await current_record().preparation.begin()
        begun.append(number)
        await may_go[number].wait()
        if number % 3 == 1:
            raise RuntimeError
        if number % 3 == 2:
            raise QueueFull("there is no room", 1.0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = Gate(app, Admission(10), None, Limits(body_bytes=10, voice_bytes=10, body_seconds=60))

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_message: Any) -> None: ...

    async def one_request(number: int) -> None:
        open_record(RequestRecord())
        path = {"type": "http", "method": "GET", "path": "/v1/models", "headers": []}
        with contextlib.suppress(RuntimeError):
            await gate({**path, "query_string": b"%d" % number}, receive, send)

    async def all_of_them() -> None:
        requests = [asyncio.create_task(one_request(number)) for number in range(len(may_go))]
        for number, event in enumerate(may_go):
            async with asyncio.timeout(10.0):
                while len(begun) < min(number + preparation._AT_A_TIME, len(may_go)):
                    await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert begun == list(range(min(number + preparation._AT_A_TIME, len(may_go))))
            event.set()
            await requests[number]

    asyncio.run(all_of_them())


async def assert_free_after(app: Any, admission: Admission, sleeps: asyncio.Event, leaves: bool) -> None:
    gate = Gate(app, admission, None, Limits(body_bytes=10, voice_bytes=10, body_seconds=60))
    messages: list[Any] = [{"type": "http.request", "body": b"a"}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        if len(messages) > 1 or leaves:
            return messages.pop(0)
        return await asyncio.sleep(60)

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": GENERATE, "headers": [(b"content-length", b"1")]}
    task = asyncio.create_task(gate(scope, receive, send))
    await asyncio.wait_for(sleeps.wait(), 60)
    admission.check_place()
    assert admission.n_requests == 0
    task.cancel()
    await asyncio.wait({task})
    assert admission.n_requests == 0


def test_the_rate_limit_counts_posts_of_ours_alone():
    clock = Clock()
    app = application(Admission(9), [], RateLimit(2, clock))

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = [await client.get(VOICES), await client.post("/other"), await client.post(VOICES)]
        return [*first, await client.post(SPEECH), await client.post(SPEECH), await client.post(GENERATE)]

    *served, refused, also = asked(app, ask)
    assert [answer.status_code for answer in served] == [200, 404, 200, 200]
    assert (refused.status_code, also.status_code) == (429, 429)
    assert refused.headers["retry-after"] == "30"
    assert error_of(refused)["code"] == "rate_limit_exceeded"


def test_a_closed_server_refuses_everything_but_finishes_what_runs():
    async def run() -> None:
        go_on = asyncio.Event()
        admission = Admission(2)
        app = application(admission, [], go_on=go_on)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            running = asyncio.create_task(client.post(GENERATE, content=b"a"))
            while admission.n_requests < 1:
                await asyncio.sleep(0)
            admission.close(30)
            for method, path in (("POST", SPEECH), ("GET", "/health"), ("GET", VOICES), ("POST", GENERATE)):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.headers["connection"]) == (503, "close")
                assert int(answer.headers["retry-after"]) <= 30
                error_of(answer)
            assert admission.n_requests == 1
            go_on.set()
            assert (await running).content == b"123"
            assert admission.n_requests == 0

    asyncio.run(run())


def test_what_a_server_that_ends_still_answers_is_the_last_on_its_connection():
    admission = Admission(1)

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        admission.close(30)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a"})

    limits = Limits(body_bytes=10, voice_bytes=10, body_seconds=60)
    answer = asked(Gate(app, admission, None, limits), lambda client: client.get(VOICES))
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_is_refused_by_an_open_server_keeps_the_connection(method: str):
    answer = asked(application(Admission(1), []), lambda client: client.request(method, "/nowhere"))
    assert answer.status_code == 404
    assert "connection" not in answer.headers
    assert json.loads(answer.content)
