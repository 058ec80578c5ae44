"""What one request, client or fault does to what else is on its connection, and how long it is waited for."""

import json

import pytest
from fake_endpoints import listening
from raw_http import ECHO, HOLD, Application, connected, reset, until_closed

from sglang_moss.server import http_connection, http_protocol

pytestmark = pytest.mark.wide


def test_a_client_that_left_is_gone_for_the_request_that_runs_not_only_for_the_last_one(app: Application, url: str):
    with connected(url) as connection:
        connection.sendall(HOLD + ECHO)
        assert app.begun.wait(60)
        reset(connection)
        assert app.left.wait(60)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /echo HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(20_000)) + b"\r\n",
        b"GET /echo HTTP/1.1\r\nX: " + b"a" * 80_000 + b"\r\n\r\n",
        b"GET /echo?" + b"a" * 80_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nX: " + b"a" * 400_000,
        b"GET /echo?" + b"a" * 400_000,
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: " + b"a" * 400_000,
    ],
    ids=["many", "value", "target", "endless value", "endless target", "trailer"],
)
def test_a_head_has_bounds(url: str, head: bytes):
    with connected(url) as connection:
        connection.sendall(head)
        assert until_closed(connection).startswith(b"HTTP/1.1 431 ")


def test_trailers_are_no_headers(url: str):
    chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(chunked + b"3\r\nabc\r\n0\r\nAuthorization: Bearer a\r\n\r\n")
        said = json.loads(until_closed(connection).partition(b"\r\n\r\n")[2])
    assert said == {"names": ["host", "transfer-encoding", "connection"], "n_bytes": 3}


def test_a_connection_that_asks_for_nothing_is_kept_as_long_as_any_that_is_idle(app: Application):
    http_protocol.install()
    with listening(app, timeout_keep_alive=1) as url, connected(url) as connection:
        assert until_closed(connection) == b""


@pytest.mark.parametrize("sent", [b"GET /ec", b"GET /echo HTTP/1.1\r\nHost: a\r\n", ECHO + b"GET"])
def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, url: str, sent: bytes):
    monkeypatch.setattr(http_connection, "_HEAD_SECONDS", 0.2)
    with connected(url) as connection:
        connection.sendall(sent)
        assert until_closed(connection).startswith(b"HTTP/1.1 200 " if ECHO in sent else b"")


def test_a_request_may_take_longer_than_its_head(monkeypatch: pytest.MonkeyPatch, app: Application, url: str):
    monkeypatch.setattr(http_connection, "_HEAD_SECONDS", 0.1)
    with connected(url) as connection:
        connection.sendall(HOLD + b"GET")
        assert not app.left.wait(0.3)
        app.go.set()
        assert b"two" in until_closed(connection)


def test_what_is_no_request_is_said_after_the_answers_that_are_due(app: Application, url: str):
    with connected(url) as connection:
        connection.sendall(HOLD)
        assert app.begun.wait(60)
        connection.sendall(ECHO + b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345garbage\r\n\r\n")
        app.go.set()
        said = until_closed(connection)
    held, *others = said.split(b"HTTP/1.1 ")[1:]
    assert held.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert [other[:3] for other in others] == [b"200", b"200", b"400"]


def test_a_request_whose_body_is_broken_is_told_so_and_ends(app: Application, url: str):
    with connected(url) as connection:
        connection.sendall(HOLD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"))
        assert app.begun.wait(60)
        connection.sendall(b"no length\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 400 ")
        assert app.left.wait(60)


def test_requests_that_are_sent_ahead_are_bounded(app: Application, url: str):
    n_queued = http_connection._MOST_QUEUED
    with connected(url) as connection:
        connection.sendall(HOLD)
        assert app.begun.wait(60)
        connection.sendall(ECHO * (n_queued + 5))
        app.go.set()
        statuses = [one[:3] for one in until_closed(connection).split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200"] * (n_queued + 1)
