"""How connections end: the last answer arrives, and none stays for ever."""

import pytest
from fake_endpoints import listening
from raw_http import ECHO, MB, REFUSED, Application, connected, ended, until_closed

from sglang_moss.server import http_closing, http_connection, http_protocol
from sglang_moss.server.gate.admission import Admission
from sglang_moss.server.gate.gate import Gate, Limits

pytestmark = pytest.mark.wide


@pytest.mark.parametrize("size", [b"Content-Length: 16000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_refusal_arrives_while_the_body_is_being_sent(url: str, size: bytes):
    with connected(url) as connection:
        connection.sendall(REFUSED + size)
        for _ in range(160):
            connection.sendall(b"186a0\r\n" + bytes(100_000) + b"\r\n" if b"chunked" in size else bytes(100_000))
        said = until_closed(connection)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in said
    assert said.endswith(b"\r\n\r\nno")


def test_a_client_that_awaits_leave_to_send_is_told_that_nothing_more_is_read(url: str):
    with connected(url) as connection:
        connection.sendall(REFUSED + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        said = until_closed(connection)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in said


def test_the_end_of_a_connection_is_said_once(url: str):
    with connected(url) as connection:
        connection.sendall(b"POST /last HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        said = until_closed(connection)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert said.count(b"connection:") == 1


@pytest.mark.parametrize(("announced", "status"), [(1000, 413), (10, 408)])
def test_what_the_gate_refuses_before_all_of_the_body_has_come_ends_the_connection(announced: int, status: int):
    gate = Gate(Application().echo, Admission(1), None, Limits(body_bytes=100, voice_bytes=100, body_seconds=0.3))
    http_protocol.install()
    with listening(gate, lifespan="off") as url, connected(url) as connection:
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: a\r\nContent-Length: {announced}\r\n\r\na"
        connection.sendall(head.encode())
        said = until_closed(connection)
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert said.count(b"connection: close\r\n") == said.count(b"connection:") == 1


def test_a_refusal_of_a_whole_request_keeps_the_connection(url: str):
    with connected(url) as connection:
        connection.sendall(REFUSED + b"Content-Length: 5\r\n\r\n12345")
        assert connection.recv(1000).endswith(b"no")
        connection.sendall(ECHO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert until_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_takes_nothing_is_cut(monkeypatch: pytest.MonkeyPatch, app: Application, url: str):
    monkeypatch.setattr(http_connection, "_STALLED_SECONDS", 0.2)
    with connected(url, receives_bytes=4096) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert app.left.wait(60)
        ended()


def test_what_is_left_at_the_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setattr(http_closing, "_FLUSH_SECONDS", 0.2)
    with connected(url, receives_bytes=4096) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        connection.recv(1)
        assert not http_closing.all_has_left()
        ended()
        assert http_closing.all_has_left()


def test_an_upload_that_goes_on_and_on_after_its_refusal_is_cut(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setattr(http_closing, "_LINGER_SECONDS", 0.2)
    with connected(url) as connection:
        connection.sendall(REFUSED + b"Content-Length: 5\r\n\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 401 ")
        assert not http_closing.all_has_left()
        ended()


def test_a_flood_after_its_refusal_is_not_read(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setattr(http_closing, "_LINGER_BYTES", MB)
    with connected(url) as connection:
        connection.sendall(REFUSED + b"Content-Length: 1000000000000\r\n\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 401 ")
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(100 * MB))
        ended()
