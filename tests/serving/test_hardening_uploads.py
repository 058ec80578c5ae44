"""Many voices uploaded at once: few are decoded at a time, each is stored whole, and names are taken once."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_manager import FakeManager
from fastapi import FastAPI

from sglang_moss.benchmarks.hostile.audio import DOUBTFUL, REFUSED, written
from sglang_moss.server.app import add_routes
from sglang_moss.server.speech import routes

pytestmark = pytest.mark.wide

VOICES = "/v1/audio/voices"
CLIP = written("WAV")


@pytest.fixture
def manager(tmp_path: Path) -> FakeManager:
    return FakeManager(lambda _request: [], tmp_path / "voices", max_voices=50)


@pytest.fixture
def app(manager: FakeManager) -> FastAPI:
    made = FastAPI()
    add_routes(made, manager.server_args, manager)
    return made


def upload_all(app: FastAPI, uploads: list[tuple[str, bytes]]) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            sent = (client.post(VOICES, data={"name": n}, files={"audio": ("a", data)}) for n, data in uploads)
            return await asyncio.gather(*sent)

    return asyncio.run(run())


def listed(app: FastAPI) -> list[str]:
    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return (await client.get(VOICES)).json()

    return [voice["id"] for voice in asyncio.run(run())["data"]]


def test_two_uploads_are_decoded_at_a_time(app: FastAPI, monkeypatch: pytest.MonkeyPatch):
    """Each may take a quarter of a gigabyte."""
    lock, now, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=60)
    decode = routes.prepare_reference

    def slow(*arguments: Any, **named: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait()
        time.sleep(0.02)  # in which a third would be seen
        try:
            return decode(*arguments, **named)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(routes, "prepare_reference", slow)
    answers = upload_all(app, [(f"v{i}", CLIP) for i in range(20)])
    assert [answer.status_code for answer in answers] == [201] * 20
    assert most == 2


def test_a_name_is_given_once_whoever_comes_first(app: FastAPI):
    answers = upload_all(app, [("alice", CLIP)] * 10)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert listed(app) == ["alice"]


def test_hostile_files_leave_only_voices_that_were_answered(app: FastAPI):
    files = [(f"v{i}", make()) for i, make in enumerate({**REFUSED, **DOUBTFUL}.values())]
    small = [(name, data) for name, data in files if len(data) < 1_000_000]
    answers = upload_all(app, small)
    assert {answer.status_code for answer in answers} == {201, 400}
    stored = [name for (name, _), answer in zip(small, answers, strict=True) if answer.status_code == 201]
    assert sorted(listed(app)) == sorted(stored)


def test_a_stored_voice_has_been_encoded_and_one_that_cannot_be_is_not_stored(app: FastAPI, manager: FakeManager):
    assert [answer.status_code for answer in upload_all(app, [("alice", CLIP)])] == [201]
    assert manager.learned == [CLIP]
    manager.learning_fails = True
    assert [answer.status_code for answer in upload_all(app, [("bob", CLIP)])] == [500]
    assert listed(app) == ["alice"]
