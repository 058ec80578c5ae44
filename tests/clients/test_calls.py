"""What both clients share: the same arguments, and events read one at a time."""

import inspect

import httpx
import pytest

from sglang_moss.clients import AsyncMossClient, MossClient, ServerRefused
from sglang_moss.clients.calls import StreamCall, StreamReader

OK = httpx.Response(200)


def read(data: bytes, _headers: httpx.Headers) -> bytes | None:
    if data == b"broken":
        raise ServerRefused(500, "broken")
    return data if data != b"last" else None


@pytest.mark.parametrize("name", [name for name in vars(MossClient) if not name.startswith("_")])
def test_both_clients_take_the_same_arguments(name: str):
    sync, asynchronous = (inspect.signature(getattr(client, name)) for client in (MossClient, AsyncMossClient))
    assert sync.parameters == asynchronous.parameters


def test_what_comes_before_a_failure_in_the_same_bytes_is_had():
    reader = StreamReader(StreamCall("/", {}, read), OK)
    events = reader.feed(b"data: one\n\ndata: broken\n\n")
    assert next(events) == b"one"
    with pytest.raises(ServerRefused):
        next(events)


def test_an_event_may_end_the_answer():
    reader = StreamReader(StreamCall("/", {}, read), OK)
    assert list(reader.feed(b"data: one\n\ndata: last\n\n")) == [b"one"]
    reader.check_ended()
