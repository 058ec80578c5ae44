"""Offers of another protocol cost no request its body: raw bytes on a socket, as clients send them."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_endpoints import listening, serving, three_events
from fake_manager import SAMPLE_RATE, FakeManager
from fastapi import FastAPI, Request
from sglang.srt.environ import envs
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sglang_moss.server import http_protocol
from sglang_moss.server.app import add_routes

pytestmark = pytest.mark.wide

JAVA = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
OFFERS = {
    "java": JAVA,
    "h2c alone": "Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "tls": "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n",
    "several": "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, TLS/1.3\r\nUpgrade: IRC/6.9\r\n",
    "unnamed": "Connection: Upgrade\r\n",
    "unconnected": "Upgrade: h2c\r\n",
    "none": "",
}
BODY = json.dumps({"input": "Hello there, my friend.", "response_format": "pcm"}).encode()
CHUNKED = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[str, int]]:
    """A server that says what it was sent."""
    http_protocol.install()
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def say(request: Request) -> dict[str, Any]:
        return {
            "target": request.url.path + "?" + request.url.query,
            "method": request.method,
            "body": (await request.body()).decode(),
            "headers": sorted(request.headers.keys()),
        }

    with listening(app) as url:
        parsed = httpx.URL(url)
        yield parsed.host, parsed.port or 0


def head(offer: str, length: int | None, target: str = "/a%20b?c=d", method: str = "POST") -> bytes:
    """Of a request with a body of so many bytes; None: of chunks."""
    size = "Transfer-Encoding: chunked\r\n" if length is None else f"Content-Length: {length}\r\n" if length else ""
    fields = f"Host: a\r\n{offer}Content-Type: application/json\r\n{size}X-Last: 1\r\n"
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode()


def answers_of(address: tuple[str, int], pieces: list[bytes], n: int = 1) -> list[dict[str, Any]]:
    """The JSON answers to what is sent piece by piece over one connection."""
    with socket.create_connection(address, timeout=60) as connection:
        for piece in pieces:
            connection.sendall(piece)
        file = connection.makefile("rb")
        found = []
        for _ in range(n):
            status = file.readline()
            assert b" 200 " in status, status
            length = 0
            while (line := file.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append(json.loads(file.read(length)))
        return found


def in_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("split", ["at once", "head first", "byte by byte"])
def test_the_request_is_answered_as_without_the_offer(echo: tuple[str, int], offer: str, chunked: bool, split: str):
    whole = head(OFFERS[offer], None if chunked else len(BODY)), CHUNKED if chunked else BODY
    pieces = {"at once": [b"".join(whole)], "head first": list(whole), "byte by byte": in_bytes(b"".join(whole))}
    (answer,) = answers_of(echo, pieces[split])
    assert (answer["method"], answer["target"], answer["body"]) == ("POST", "/a b?c=d", BODY.decode())
    assert "x-last" in answer["headers"]
    if offer in ("java", "h2c alone", "tls", "several"):
        assert not {"upgrade", "http2-settings"} & set(answer["headers"])


@pytest.mark.parametrize("offer", OFFERS)
def test_the_connection_goes_on(echo: tuple[str, int], offer: str):
    one = head(OFFERS[offer], len(BODY)) + BODY
    get = head(OFFERS[offer], 0, method="GET")
    found = answers_of(echo, [one + one + get + one], n=4)
    assert [answer["body"] for answer in found] == [BODY.decode(), BODY.decode(), "", BODY.decode()]


def test_a_body_that_looks_like_a_request_stays_a_body(echo: tuple[str, int]):
    smuggled = head(JAVA, 0, target="/other")
    (answer,) = answers_of(echo, [head(JAVA, len(smuggled)) + smuggled])
    assert answer["body"].encode() == smuggled


@pytest.mark.parametrize(
    "request_", [b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", head(JAVA, 3)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_what_is_no_request_ends_its_connection_only(echo: tuple[str, int], request_: bytes):
    with socket.create_connection(echo, timeout=60) as connection:
        connection.sendall(request_)
        connection.settimeout(0.3)
        with suppress(TimeoutError):
            assert b" 200 " not in connection.recv(100)
    assert answers_of(echo, [head(JAVA, len(BODY)) + BODY])[0]["body"] == BODY.decode()


@pytest.mark.parametrize("offer", [JAVA, OFFERS["tls"]])
@pytest.mark.parametrize("chunked", [False, True])
def test_speech_is_spoken_to_java(tmp_path: Path, offer: str, chunked: bool):
    with serving(three_events, tmp_path) as (client, manager):
        address = client.base_url.host, client.base_url.port or 0
        with socket.create_connection(address, timeout=60) as connection:
            size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(BODY)}"
            connection.sendall(
                f"POST /v1/audio/speech HTTP/1.1\r\nHost: a\r\n{offer}Connection: close\r\n"
                f"Content-Type: application/json\r\n{size}\r\n\r\n".encode()
                + (CHUNKED if chunked else BODY)
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert f"x-sample-rate: {SAMPLE_RATE}".encode() in answer.lower()
    assert manager.requests[0].text.endswith("Hello there, my friend.")


@pytest.mark.parametrize("chunk", [None, 1, 1000, 3_000_000])
def test_a_body_of_megabytes_comes_as_it_was_sent(echo: tuple[str, int], chunk: int | None):
    body = b"".join(b"%07d" % i for i in range(1000 if chunk == 1 else 700_000))
    sent = body
    if chunk is not None:
        parts = (body[start : start + chunk] for start in range(0, len(body), chunk))
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    request = head("", None if chunk else len(body)) + sent
    for answer in answers_of(echo, [request]):
        assert answer["body"].encode() == body


@pytest.mark.parametrize(("set_by_the_operator", "seconds"), [(None, 180), ("30", 30)])
def test_idle_connections_stay_open_longer_than_a_proxy_keeps_them(
    monkeypatch: pytest.MonkeyPatch, set_by_the_operator: str | None, seconds: int
):
    monkeypatch.setenv("SGLANG_TIMEOUT_KEEP_ALIVE", set_by_the_operator or "")
    if set_by_the_operator is None:
        monkeypatch.delenv("SGLANG_TIMEOUT_KEEP_ALIVE")
    http_protocol.install()
    assert envs.SGLANG_TIMEOUT_KEEP_ALIVE.get() == seconds


def test_a_uvicorn_without_what_is_relied_upon_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delattr(HttpToolsProtocol, "_start_asgi_task")  # as before 0.46
    manager = FakeManager(three_events, tmp_path)
    with pytest.raises(RuntimeError, match=r"HttpToolsProtocol\._start_asgi_task"):
        add_routes(FastAPI(), manager.server_args, manager)
