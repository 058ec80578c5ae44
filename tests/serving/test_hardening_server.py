"""The real server, ill-treated: clients that leave, voices side by side, and kill -9. The last test ends it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_processes import lives, status_of
from waiting import n_running, wait_for, wait_until_idle
from warm_start import warm_server

from sglang_moss.benchmarks.hostile.asking import ask, client, generate, speech
from sglang_moss.benchmarks.hostile.audio import DOUBTFUL, REFUSED
from sglang_moss.benchmarks.hostile.storm import questions, storm
from sglang_moss.benchmarks.hostile.tenants import inline_voices, stored_voices
from sglang_moss.benchmarks.loads.synthetic_voice import synthetic_clip
from sglang_moss.benchmarks.runs.host_memory import server_of
from sglang_moss.clients.local_server import LocalServer
from sglang_moss.server.speech.voice_store import VoiceStore

pytestmark = pytest.mark.server

SPEECH, VOICES = "/v1/audio/speech", "/v1/audio/voices"
ALICE = synthetic_clip(0.8, 1)
ENDLESS = generate("[S1] Hello.", [], 20_000, 1).body
SMALL = [name for name, make in {**REFUSED, **DOUBTFUL}.items() if len(make()) < 200_000]


_LISTENER = """
import sys, httpx
headers = {"Content-Type": "application/json"}
with httpx.stream("POST", sys.argv[1], content=sys.argv[2], headers=headers, timeout=120) as answer:
    for line in answer.iter_lines():
        print(line[:20], flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hardening")


@pytest.fixture(scope="module")
def server(fused_path: Path, folder: Path) -> Iterator[LocalServer]:
    arguments = ["--codec-slots", "5", "--voices-dir", str(folder / "voices")]
    with warm_server(fused_path, log=folder / "server.log", extra_args=arguments) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=None)) as opened:
        yield opened


async def heard(url: str, question: Any) -> Any:
    async with client(url, None) as asking:
        return await ask(asking, question)


@pytest.mark.parametrize("name", SMALL)
def test_hostile_audio_is_refused_at_every_door(http: httpx.Client, name: str):
    data = {**REFUSED, **DOUBTFUL}[name]()
    answers = [
        http.post(question.path, json=question.body)
        for question in (generate("[S1] Hi.", [data], 2, 0), speech("[S1] Hi.", [data], 2, 0))
    ]
    answers.append(http.post(VOICES, data={"name": "hostile"}, files={"audio": ("a.wav", data)}))
    http.delete(f"{VOICES}/hostile")
    for answer in answers:
        assert 400 <= answer.status_code < 500 or (name in DOUBTFUL and answer.status_code in (200, 201)), answer.text
        if answer.status_code >= 400:
            assert answer.json()["error"]["message"]


def test_a_storm_leaves_nothing_behind(server: LocalServer, http: httpx.Client):
    control = generate("[S1] Before and after.", [ALICE], 20, 5)
    before = asyncio.run(heard(server.url, control))
    assert len(before.codes) == 20
    found = asyncio.run(storm(server.url, None, seed=3, n_clients=60))
    assert (found.wrong, found.lost, found.failed) == (0, 0, 0)
    assert found.left == 20
    assert found.answered == 40
    assert http.get("/health").status_code == 200
    assert asyncio.run(heard(server.url, control)).equals(before)


def test_storms_ask_for_different_things():
    asked = questions(0)
    assert {question.path for question in asked} == {"/generate", SPEECH}
    assert len({question.content for question in asked}) == len(asked)


def test_voices_of_two_tenants_never_cross(server: LocalServer):
    inline = asyncio.run(inline_voices(server.url, None, seed=2, n_tenants=4, n_rounds=6))
    assert (inline.requests, inline.wrong) == (24, 0)
    stored = asyncio.run(stored_voices(server.url, None, seed=2, n_rounds=3))
    assert (stored.requests, stored.wrong) == (27, 0)


def test_a_killed_client_stops_its_generation(server: LocalServer, http: httpx.Client):
    with subprocess.Popen(
        [sys.executable, "-c", _LISTENER, f"{server.url}/generate", json.dumps({**ENDLESS, "stream": True})],
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline().startswith("data: ")
        wait_for(lambda: n_running(http) == 1)
        os.kill(listener.pid, signal.SIGKILL)
    wait_until_idle(http)


def test_a_killed_scheduler_ends_the_server_and_nobody_takes_a_part_for_the_whole(
    server: LocalServer, http: httpx.Client, folder: Path
):
    stored = http.post(VOICES, data={"name": "alice"}, files={"audio": ("a.wav", ALICE)})
    assert stored.status_code == 201
    leader = server_of(server.url)
    assert leader is not None
    children = leader.children(recursive=True)
    assert not any("detokenizer" in " ".join(child.cmdline()) for child in children)  # there is none to be killed
    [scheduler] = [child for child in children if "scheduler" in " ".join(child.cmdline())]
    speaking = threading.Barrier(4, timeout=60)

    def stream(body: dict[str, Any]) -> bytes | None:
        """What was heard before it broke off; None: nobody could tell that it had."""
        received = b""
        try:
            with httpx.stream("POST", f"{server.url}/generate", json={**body, "stream": True}, timeout=600) as answer:
                for piece in answer.iter_raw():
                    received += piece
                    if len(received) == len(piece):
                        speaking.wait()
        except httpx.TransportError:
            return received
        return received if b'"abort"' in received else None

    def whole() -> int | None:
        """The status; None: the connection broke."""
        speaking.wait()
        try:
            return httpx.post(f"{server.url}/generate", json=ENDLESS, timeout=600).status_code
        except httpx.TransportError:
            return None

    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(stream, generate("[S1] Hello.", [], 20_000, seed).body) for seed in (1, 2)]
        answer = pool.submit(whole)
        speaking.wait()
        wait_for(lambda: n_running(http) == 3)
        os.kill(scheduler.pid, signal.SIGKILL)
        assert all(future.result() for future in streams), "a stream broke off and looked whole"
        assert answer.result() in (None, 500, 503)
    assert status_of(server) != 0  # so that a supervisor starts it anew
    wait_for(lambda: not any(map(lives, children)))
    assert server_of(server.url) is None
    assert [voice.name for voice in VoiceStore(folder / "voices", 5).list_voices()] == ["alice"]
