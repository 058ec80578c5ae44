"""When turns are heard in samples that the page sends: as answers tell it, within bounds."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import httpx
import numpy as np
import pytest
from fake_endpoints import leaving, serving, three_events
from starlette.requests import ClientDisconnect

from sglang_moss.request.turns import turns_of
from sglang_moss.server import waiting
from sglang_moss.server.page import turns
from sglang_moss.turn_times import timing
from sglang_moss.turn_times.timing import told_turns, turn_times

pytestmark = pytest.mark.wide

RATE = 24_000
SCRIPT = "[S1] It is about to rain. [S2] So they say. [S1] We shall see."
T = np.arange(RATE) / RATE
VOWEL = np.rint(3_000 * sum(np.sin(2 * np.pi * k * 150 * T) / k for k in range(1, 9))).astype("<i2")
PCM = np.concatenate([np.r_[VOWEL, np.zeros(RATE // 2, "<i2")] for _ in range(3)]).astype("<i2")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(three_events, tmp_path_factory.mktemp("served")) as (opened, _):
        yield opened


def ask(client: httpx.Client, pcm: bytes = PCM.tobytes(), **fields: Any) -> httpx.Response:
    data = {"script": SCRIPT, "rate": str(RATE), **fields}
    return client.post("/page/turns", data=data, files={"audio": pcm})


@pytest.mark.parametrize("is_cut", [False, True])
def test_they_are_told_by_the_rule_of_answers(client: httpx.Client, is_cut: bool):
    pcm = PCM[: len(PCM) // 3] if is_cut else PCM
    answer = ask(client, pcm.tobytes(), is_cut=str(is_cut).lower())
    assert answer.status_code == 200
    told = answer.json()["turns"]
    times = turn_times(pcm, RATE, turns_of(SCRIPT), is_cut=is_cut).round(2).tolist()
    assert [[turn["start"], turn["end"]] for turn in told] == times
    assert (told[0]["speaker"], told[0]["text"]) == ("S1", "It is about to rain.")
    assert len(told) == (1 if is_cut else 3)


@pytest.mark.parametrize(
    ("pcm", "fields", "said"),
    [
        (PCM.tobytes(), {"script": "[S1] ..."}, "script: expected words"),
        (PCM.tobytes(), {"script": "[S7] a"}, "got [S7]"),
        (PCM.tobytes(), {"script": f"[S{'1' * 5_000}] a"}, "one with 5000 digits"),
        (PCM.tobytes(), {"script": "[S1] a" * 2_001}, "got 2001"),
        (bytes(2 * 8_000 * 51), {"rate": "8000", "script": "[S1] a" * 2_000}, "2000 turns in 51 s are too much"),
        (PCM.tobytes(), {"rate": "96000"}, "rate: of the samples"),
        (PCM.tobytes(), {"rate": "many"}, "rate: "),
        (b"\0\0\0", {}, "got 3 bytes"),
        (b"", {}, "got 0 bytes"),
    ],
)
def test_what_cannot_be_told_is_refused(client: httpx.Client, pcm: bytes, fields: dict[str, str], said: str):
    answer = ask(client, pcm, **fields)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


class Held:
    """Stands in for `turn_times`: what the page sends first is held until `go`."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.has_begun, self.go = threading.Event(), threading.Event()

    def __call__(self, pcm: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        self.lengths.append(len(pcm))
        if len(pcm) == len(PCM):
            self.has_begun.set()
            self.go.wait(60)
        return turn_times(pcm, *args, **kwargs)


def test_no_answer_waits_for_it_and_who_leaves_ends_it(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    held, n_waiting, n_left = Held(), threading.Semaphore(0), threading.Semaphore(0)

    async def watched(*operands: Any) -> Any:
        n_waiting.release()
        try:
            return await waiting.while_connected(*operands)
        except ClientDisconnect:
            n_left.release()
            raise

    monkeypatch.setattr(timing, "turn_times", held)
    monkeypatch.setattr(turns, "while_connected", watched)
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.02)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, client)
        try:
            assert held.has_begun.wait(60)
            assert n_waiting.acquire(timeout=60)
            told = told_turns(lambda: PCM[: RATE // 2], RATE, turns_of(SCRIPT))
            assert len(pool.submit(asyncio.run, told).result(timeout=60)) == 3
            asked = {"data": {"script": SCRIPT, "rate": str(RATE)}, "files": {"audio": PCM[:RATE].tobytes()}}
            with leaving(client, "POST", "/page/turns", **asked):
                assert n_waiting.acquire(timeout=60)
            assert n_left.acquire(timeout=60)
        finally:
            held.go.set()
        assert first.result().status_code == 200
    assert ask(client, PCM[: 2 * RATE].tobytes()).status_code == 200
    assert held.lengths == [len(PCM), RATE // 2, 2 * RATE]


def test_so_many_may_wait_and_the_next_is_told_when_to_ask_again(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    held = Held()
    monkeypatch.setattr(timing, "turn_times", held)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(ask, client) for _ in range(9)]
        try:
            [refused], _ = wait(asked, timeout=60, return_when=FIRST_COMPLETED)
        finally:
            held.go.set()
    answer = refused.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert answer.headers["retry-after"] == "5"
    assert [one.result().status_code for one in asked if one is not refused] == [200] * 8
    assert ask(client).status_code == 200, "there is place again"
