"""nginx and Envoy as they ship, in front of three servers: affinity, streams, refusals, and one killed."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import stub_server
from proxies import DEPLOY, PROXIES
from waiting import wait_for

from sglang_moss.clients import AsyncMossClient, Reference, ServerUnreachable
from sglang_moss.clients.local_server import kept_port
from sglang_moss.clients.request import VOICE_HEADER

N_SERVERS = 3
# Servers' ports, and with them which voice goes to which, are other ones each time: few voices may leave one idle.
N_VOICES = 40
N_REQUESTS = 60  # each with a voice of its own

pytestmark = [pytest.mark.wide, pytest.mark.slow]


@dataclass
class Proxied:
    name: str  # of the proxy
    url: str
    servers: list[subprocess.Popen]
    held: Path  # while this file is there, no server's answer goes on beyond its first chunk

    def server_of(self, voice: str | None = None) -> str | None:
        """Who answers, in no time; None: nobody."""
        headers = {"X-Moss-Voice": voice} if voice else {}
        try:
            return httpx.get(f"{self.url}/v1/models", headers=headers, timeout=60).headers.get("x-server")
        except httpx.TransportError:
            return None

    def ask(self, text: str = "[S1] Hi.", voice: str | None = None) -> httpx.Response:
        headers = {"X-Moss-Voice": voice} if voice else {}
        return httpx.post(f"{self.url}/generate", json={"text": text}, headers=headers, timeout=60)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module", params=PROXIES)
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("proxy")
    held_file = folder / "held"
    with ExitStack() as stack:
        port, *ports = (stack.enter_context(kept_port()) for _ in range(1 + N_SERVERS))
        command = PROXIES[request.param](folder, port, ports)
        if command is None:
            pytest.skip(f"there is no {request.param} here")
        programs = [
            [sys.executable, stub_server.__file__, f"server{i}", str(p), str(held_file)] for i, p in enumerate(ports)
        ]
        *servers, proxy = (stack.enter_context(running(program)) for program in (*programs, command))
        found = Proxied(request.param, f"http://127.0.0.1:{port}", servers, held_file)
        known: set[str | None] = set()

        def knows_all() -> bool:
            known.add(found.server_of())
            return proxy.poll() is not None or len(known - {None}) == N_SERVERS

        wait_for(knows_all)
        assert proxy.poll() is None
        yield found


@contextmanager
def held(proxied: Proxied) -> Iterator[None]:
    """No answer goes on, until the block is left at the latest."""
    proxied.held.touch()
    try:
        yield
    finally:
        proxied.held.unlink(missing_ok=True)


def test_it_hashes_what_our_clients_send():
    assert f"$http_{VOICE_HEADER.lower().replace('-', '_')}" in (DEPLOY / "nginx" / "moss-ttsd.conf").read_text()
    assert f"header_name: {VOICE_HEADER.lower()}" in (DEPLOY / "envoy" / "envoy.yaml").read_text()


def test_a_voice_goes_to_one_server_and_voices_to_all(proxied: Proxied):
    found = [proxied.server_of(f"voice{i % N_VOICES}") for i in range(3 * N_VOICES)]
    assert found[:N_VOICES] == found[N_VOICES : 2 * N_VOICES] == found[2 * N_VOICES :]
    assert len(set(found)) == N_SERVERS


def test_a_popular_voice_fills_its_server_but_for_envoy(proxied: Proxied):
    body, headers = {"text": "[S1] Hi.", "stream": True}, {"X-Moss-Voice": "voice0"}
    with held(proxied), httpx.Client(base_url=proxied.url, timeout=60) as client, ExitStack() as at_once:
        streams = [client.stream("POST", "/generate", json=body, headers=headers) for _ in range(24)]
        found = {at_once.enter_context(stream).headers["x-server"] for stream in streams}
    assert (len(found) > 1) == (proxied.name == "envoy")


def test_a_chunk_leaves_when_it_comes(proxied: Proxied):
    body = {"text": "[S1] Hi.", "stream": True}
    with held(proxied), httpx.stream("POST", f"{proxied.url}/generate", json=body, timeout=60) as answer:
        rest = answer.iter_bytes()
        assert next(rest).startswith(b"data: ")
        proxied.held.unlink()
        assert b"[DONE]" in b"".join(rest)


@pytest.mark.parametrize(("text", "status"), [("[S1] full", 429), ("[S1] leaving server0 server1 server2", 503)])
def test_a_refusal_of_all_servers_passes_with_its_time(proxied: Proxied, text: str, status: int):
    answer = proxied.ask(text, voice="a")
    assert answer.status_code == status
    assert answer.headers["retry-after"] == stub_server.RETRY_AFTER
    assert "is busy" in answer.text


def test_refusals_do_not_make_servers_dead(proxied: Proxied):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: proxied.ask("[S1] full", f"voice{i}"), range(40)))
    assert {(answer.status_code, answer.headers.get("retry-after")) for answer in found} == {
        (429, stub_server.RETRY_AFTER)
    }
    assert proxied.ask().status_code == 200


def test_what_one_server_refuses_another_speaks(proxied: Proxied):
    """A server that leaves loses no answer."""
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: proxied.ask("[S1] leaving server1", f"voice{i}"), range(N_VOICES)))
    assert {answer.status_code for answer in found} == {200}
    assert {answer.headers["x-server"] for answer in found} == {"server0", "server2"}


def test_a_server_that_is_killed_costs_only_the_streams_that_it_had_begun(proxied: Proxied):
    """The last test of these servers."""

    begun: set[int] = set()

    async def one(client: AsyncMossClient, number: int) -> str:
        references = [Reference(f"clip {number}".encode())]
        try:
            if number % 2:
                speech = await client.generate("[S1] Hi.", references)
                return "whole" if speech.frames == stub_server.CHUNKS else "short"
            chunks = []
            async for chunk in client.stream("[S1] Hi.", references):
                begun.add(number)
                chunks.append(chunk)
            return "whole" if len(chunks) == stub_server.CHUNKS and chunks[-1].finish_reason == "stop" else "short"
        except ServerUnreachable:
            return "cut"

    async def all_of_them() -> Counter[str]:
        async with AsyncMossClient(proxied.url, retries=3) as client:
            asked: list[Any] = [asyncio.create_task(one(client, number)) for number in range(N_REQUESTS)]
            async with asyncio.timeout(60):
                while len(begun) < N_REQUESTS // 2:
                    await asyncio.sleep(0.01)
            proxied.servers[0].kill()
            proxied.held.unlink()
            found = Counter(await asyncio.gather(*asked))
            found += Counter(await asyncio.gather(*(one(client, number) for number in range(N_REQUESTS))))
            return found

    with held(proxied):
        found = asyncio.run(all_of_them())
    assert found["short"] == 0
    assert 0 < found["cut"] < N_REQUESTS // 2, "streams of one server of three"
    assert found["whole"] == 2 * N_REQUESTS - found["cut"]
