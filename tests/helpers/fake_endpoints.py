"""The server's own routes on a real HTTP server, over `FakeManager` in the place of SGLang."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fake_manager import STOP, FakeManager, event, frames_of
from fastapi import FastAPI
from waiting import PATIENCE_S, wait_for

from sglang_moss.server.app import add_routes


def three_events(_request: Any) -> list[dict[str, Any]]:
    """A script for `FakeManager`: nine frames, three an event."""
    return [event(frames_of(100)), event(frames_of(200)), event(frames_of(300), STOP)]


@contextmanager
def serving(script: Callable[[Any], Any], tmp_path: Path, **options: Any) -> Iterator[tuple[httpx.Client, FakeManager]]:
    """A client of the routes, and what stands in for SGLang behind them.

    Args:
        script: what is answered to a request, see `FakeManager`.
        tmp_path: voices are stored in `voices` there.
    """
    manager = FakeManager(script, tmp_path / "voices", **options)
    app = FastAPI()
    add_routes(app, manager.server_args, manager)
    with listening(app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield client, manager


@contextmanager
def leaving(client: httpx.Client, method: str, path: str, **content: Any) -> Iterator[None]:
    """A request that was sent whole, of a client that leaves without an answer when this ends.

    Args:
        content: of the request, as `httpx` takes it.
    """
    request = client.build_request(method, path, **content)
    fields = b"".join(b"%b: %b\r\n" % field for field in request.headers.raw)
    address = client.base_url.host, client.base_url.port or 0
    with socket.create_connection(address, PATIENCE_S) as connection:
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), request.url.raw_path, fields)
        connection.sendall(head + request.read())
        yield


@contextmanager
def listening(app: Any, **options: Any) -> Iterator[str]:
    """The address of an ASGI application, served by a thread; `options` are uvicorn's.

    Connections are kept while nothing is asked for, or one might be closed just when the next request is on its way.
    """
    config = uvicorn.Config(app, log_level="critical", **{"timeout_keep_alive": 600, **options})
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # from now on nobody else has the port
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            assert server.started, "the server has ended while it started"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
