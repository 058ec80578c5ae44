"""A client that leaves in the middle of its body is no failure of the server, and nothing of its request stays."""

import logging
import socket
from pathlib import Path

import pytest
from fake_endpoints import serving, three_events

pytestmark = pytest.mark.wide

PATHS = ["/generate", "/v1/audio/speech", "/page/encode?format=wav&rate=24000", "/v1/audio/voices", "/page/turns"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_logged_as_failed(caplog: pytest.LogCaptureFixture, tmp_path: Path, path: str):
    kind = "application/json" if path in PATHS[:2] else "multipart/form-data; boundary=b"
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n"
    with serving(three_events, tmp_path) as (client, manager):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=60) as connection:
            connection.sendall(head.encode() + b'{"input": "a')
        assert client.get("/v1/audio/voices").status_code == 200
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert manager.requests == []
