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
from waiting import wait_for

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
    # uvicorn closes what is idle for five seconds; a request that is sent just then would be lost.
    limits = httpx.Limits(keepalive_expiry=3.0)
    with listening(app) as url, httpx.Client(base_url=url, timeout=60, limits=limits) as client:
        yield client, manager


@contextmanager
def listening(app: Any, **options: Any) -> Iterator[str]:
    """The address of an ASGI application, served by a thread; `options` are uvicorn's."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", **options))
    listener = socket.create_server(("127.0.0.1", 0))  # a port that was only looked for may be somebody else's by now
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
