"""Answers on their way out: what the client gets, when it counts as sent, and clients that read nothing."""

import asyncio
from typing import Any

import pytest

from sglang_moss.server.gate.paced_send import ClientStalled, PacedSend

MB = 1 << 20


def sent(*messages: tuple[bytes, bool]) -> list[tuple[bytes, bool]]:
    """Body messages that leave for those that an application sends."""
    found = []

    async def send(message: Any) -> None:
        found.append((message["body"], message["more_body"]))

    async def run() -> None:
        outgoing = PacedSend(send, 60.0)
        for body, more in messages:
            await outgoing.send({"type": "http.response.body", "body": body, "more_body": more})

    asyncio.run(run())
    return found


@pytest.mark.parametrize("size", [0, 1, MB - 1, MB, MB + 1, 5 * MB // 2])
@pytest.mark.parametrize("more", [True, False])
def test_every_byte_leaves_in_pieces_and_the_end_once_after_all_of_them(size: int, more: bool):
    body = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    found = sent((body[:size], more))
    assert b"".join(piece for piece, _ in found) == body[:size]
    assert max(len(piece) for piece, _ in found) <= MB
    assert [goes_on for _, goes_on in found].count(False) == (0 if more else 1)
    if not more:
        assert found[-1] == (b"", False)


def test_events_of_a_stream_stay_messages_of_their_own():
    events = [(b"data: 1", True), (b"data: 2", True), (b"", False)]
    assert sent(*events) == events


def test_a_client_that_takes_nothing_is_given_up():
    async def run() -> bool:
        async def send(_message: Any) -> None:
            await asyncio.sleep(600)

        outgoing = PacedSend(send, 0.05)
        with pytest.raises(ClientStalled):
            await outgoing.send({"type": "http.response.body", "body": b"a", "more_body": True})
        return outgoing.is_stalled

    assert asyncio.run(run())
