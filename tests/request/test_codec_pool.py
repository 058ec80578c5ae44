"""Several codecs as one: the least busy one encodes, and all must answer."""

import asyncio
from typing import Any

import numpy as np
import pytest

from sglang_moss.errors import MossError
from sglang_moss.request import codec_pool
from sglang_moss.request.codec_pool import CodecPool


class Client:
    """In the place of `CodecClient`."""

    made: list["Client"]

    def __init__(self, address: str, n_vq: int) -> None:
        self.address = address
        self.n_vq = n_vq
        self.waiting: list[asyncio.Future[Any]] = []
        self.runs: dict[str, int] | Exception = {"a": 2, "b": 1}
        self.made.append(self)

    async def encode(self, waveforms: list[np.ndarray]) -> list[str]:
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        await answer
        return [self.address] * len(waveforms)

    async def hook_runs(self) -> dict[str, int]:
        if isinstance(self.runs, Exception):
            raise self.runs
        return self.runs


@pytest.fixture(autouse=True)
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    Client.made = []
    monkeypatch.setattr(codec_pool, "CodecClient", Client)
    return Client.made


def test_who_has_least_in_hand_encodes(clients: list[Client]):
    async def encode() -> list[Any]:
        pool: Any = CodecPool(["first", "second"], 4)
        jobs = []
        for n_samples in (10, 3, 4, 4):
            jobs.append(asyncio.create_task(pool.encode([np.zeros(n_samples)])))
            await asyncio.sleep(0)
        for client in clients:
            for answer in client.waiting:
                answer.set_result(None)
        found = [await job for job in jobs]
        assert pool._n_samples == [0, 0]
        return found

    assert asyncio.run(encode()) == [["first"], ["second"], ["second"], ["second"]]


def test_a_codec_that_is_left_has_nothing_in_hand(clients: list[Client]):
    async def leave() -> list[int]:
        pool: Any = CodecPool(["first", "second"], 4)
        job = asyncio.create_task(pool.encode([np.zeros(9)]))
        await asyncio.sleep(0)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        return pool._n_samples

    assert asyncio.run(leave()) == [0, 0]
    assert len(clients[0].waiting) == 1


def test_a_hook_has_run_where_it_has_run_on_every_rank(clients: list[Client]):
    pool = CodecPool(["first", "second"], 4)
    clients[1].runs = {"a": 1}
    assert asyncio.run(pool.hook_runs()) == {"a": 1, "b": 0}


def test_one_codec_that_does_not_answer_is_told(clients: list[Client]):
    pool = CodecPool(["first", "second"], 4)
    clients[1].runs = MossError("gone")
    with pytest.raises(MossError, match="gone"):
        asyncio.run(pool.hook_runs())
