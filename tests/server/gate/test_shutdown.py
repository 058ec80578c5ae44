"""The end of the server, as far as it needs none."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_moss.server import http_closing
from sglang_moss.server.gate import shutdown
from sglang_moss.server.gate.admission import Admission

pytestmark = pytest.mark.wide


class Transport:
    """What a slow reader has not taken yet."""

    def __init__(self) -> None:
        self.n_bytes = 1000

    def get_write_buffer_size(self) -> int:
        return self.n_bytes


class Ended(BaseException):
    """In the place of the process's end."""


@pytest.mark.parametrize("hurries", [False, True])
def test_the_end_of_an_answer_is_waited_for_while_a_slow_reader_takes_it(
    monkeypatch: pytest.MonkeyPatch, hurries: bool
):
    def end(_status: int) -> None:
        raise Ended

    monkeypatch.setattr(shutdown.os, "_exit", end)
    monkeypatch.setattr(shutdown, "kill_process_tree", lambda *_, **__: None)
    monkeypatch.setattr(shutdown, "collect_scheduler_processes", list)
    monkeypatch.setattr(shutdown, "_HURRIED_WORDS_SECONDS", 0.0)
    monkeypatch.setattr(shutdown, "_LAST_WORDS_SECONDS", 600.0)
    monkeypatch.setattr(http_closing, "_open", set())  # whatever other tests' connections still have

    async def run() -> None:
        told: list[Any] = []
        manager = SimpleNamespace(rid_to_state={}, _subprocess_watchdog=None, _dispatch_to_scheduler=told.append)
        slow = Transport()
        transport = http_closing.ClosingTransport(slow, lambda: False)
        handler = shutdown.GracefulShutdown(manager, Admission(1), 600.0)
        try:
            ending = asyncio.create_task(handler._shut_down())
            await asyncio.sleep(3 * shutdown._POLL_SECONDS)
            assert not told
            if hurries:
                handler._hurry.set()
            else:
                slow.n_bytes = 0
            with pytest.raises(Ended):
                await asyncio.wait_for(ending, 60)
            assert len(told) == 1
        finally:
            transport.lost()

    asyncio.run(run())
