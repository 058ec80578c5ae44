"""HTTP as bytes on a socket, and an application that does what they provoke."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from waiting import wait_for

from sglang_moss.server import http_closing

MB = 1 << 20
ECHO = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
HOLD = b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
REFUSED = b"POST /refuse HTTP/1.1\r\nHost: a\r\n"


class Application:
    """`/echo` tells what came; `/refuse` reads no body, nor does `/last`, which says that it closes; `/hold` answers
    once `go` is set; `/large` sends 16 MB, and `/endless` more."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.begun.set()
        await getattr(self, scope["path"].strip("/"))(scope, receive, send)

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        names = [name.decode() for name, _ in scope["headers"]]
        await answer(send, 200, json.dumps({"names": names, "n_bytes": len(body)}).encode())

    async def refuse(self, _scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, 401, b"no")

    async def last(self, _scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, 503, b"no", (b"connection", b"close"))

    async def hold(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listening_on = asyncio.create_task(receive())
        while not self.go.is_set():
            await asyncio.wait({listening_on}, timeout=0.01)
            if listening_on.done() and listening_on.result()["type"] == "http.disconnect":
                self.left.set()
                return
        listening_on.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await asyncio.sleep(0.01)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def large(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answer(send, 200, bytes(16 * MB))

    async def endless(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(16 * MB), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


async def answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def connected(url: str, receives_bytes: int | None = None) -> Iterator[socket.socket]:
    parsed = httpx.URL(url)
    with socket.socket() as connection:
        if receives_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives_bytes)
        connection.settimeout(60)
        connection.connect((parsed.host, parsed.port))
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ended() -> None:
    """Waits until the server has no connection left."""
    wait_for(lambda: not http_closing._open)
