"""The nginx configuration that ships, in front of three servers: affinity, streams, refusals, and one killed."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import stub_server
from waiting import wait_for

from sglang_moss.clients import AsyncMossClient, Reference, ServerUnreachable
from sglang_moss.clients.local_server import free_port
from sglang_moss.clients.request import VOICE_HEADER

NGINX = shutil.which("nginx")
DEPLOY = Path(__file__).parents[2] / "deploy" / "nginx"
N_SERVERS = 3
N_REQUESTS = 60

pytestmark = [
    pytest.mark.wide,
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx here (apt-get install nginx)"),
]


@dataclass
class Proxied:
    url: str
    servers: list[subprocess.Popen]

    def ask(self, text: str = "[S1] Hi.", voice: str | None = None) -> httpx.Response:
        headers = {"X-Moss-Voice": voice} if voice else {}
        return httpx.post(f"{self.url}/generate", json={"text": text}, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    ports, port = [free_port() for _ in range(N_SERVERS)], free_port()
    servers = [
        subprocess.Popen([sys.executable, stub_server.__file__, f"server{i}", str(p)]) for i, p in enumerate(ports)
    ]
    conf = (DEPLOY / "moss-ttsd.conf").read_text()
    assert "listen 30000;" in conf
    (folder / "moss-ttsd.conf").write_text(conf.replace("listen 30000;", f"listen 127.0.0.1:{port};"))
    options = (DEPLOY / "moss-ttsd-servers.inc").read_text().splitlines()[-1].partition(" max_fails")[2]
    lines = [f"server 127.0.0.1:{p} max_fails{options}" for p in ports]
    (folder / "moss-ttsd-servers.inc").write_text("\n".join(lines))
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user root;' if Path('/proc/self').owner() == 'root' else ''} daemon off; worker_processes 1;"
        f"pid {folder}/pid; error_log stderr error; events {{ worker_connections 1024; }}"
        f"http {{ access_log off; {temporary} include {folder}/moss-ttsd.conf; }}"
    )
    nginx = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"])
    found = Proxied(f"http://127.0.0.1:{port}", servers)
    try:
        wait_for(lambda: nginx.poll() is not None or all(answers(p) for p in (*ports, port)), seconds=20)
        assert nginx.poll() is None
        yield found
    finally:
        for process in (nginx, *servers):
            process.terminate()
            process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).is_success
    except httpx.TransportError:
        return False


def test_it_hashes_what_our_clients_send():
    assert f"$http_{VOICE_HEADER.lower().replace('-', '_')}" in (DEPLOY / "moss-ttsd.conf").read_text()


def test_a_voice_goes_to_one_server_and_voices_to_all(proxied: Proxied):
    async def servers_of(voices: list[str | None]) -> list[str]:
        async with httpx.AsyncClient(base_url=proxied.url, timeout=30) as client:
            headers = [{"X-Moss-Voice": voice} if voice else {} for voice in voices]
            asked = [client.post("/generate", json={"text": "[S1] Hi."}, headers=h) for h in headers]
            return [answer.headers["x-server"] for answer in await asyncio.gather(*asked)]

    voices: list[str | None] = [f"voice{i % 20}" for i in range(60)]
    found = asyncio.run(servers_of(voices))
    assert found[:20] == found[20:40] == found[40:]
    assert len(set(found)) == N_SERVERS
    assert len(set(asyncio.run(servers_of([None] * 30)))) == N_SERVERS


def test_a_chunk_leaves_when_it_comes(proxied: Proxied):
    started = time.monotonic()
    with httpx.stream("POST", f"{proxied.url}/generate", json={"text": "[S1] Hi.", "stream": True}) as answer:
        rest = answer.iter_bytes()
        next(rest)
        first = time.monotonic() - started
        assert b"[DONE]" in b"".join(rest)
    assert first < stub_server.CHUNKS * stub_server.CHUNK_SECONDS / 2 < time.monotonic() - started


@pytest.mark.parametrize(("text", "status"), [("[S1] full", 429), ("[S1] leaving server0 server1 server2", 503)])
def test_a_refusal_of_all_servers_passes_with_its_time(proxied: Proxied, text: str, status: int):
    answer = proxied.ask(text, voice="a")
    assert answer.status_code == status
    assert answer.headers["retry-after"] == stub_server.RETRY_AFTER
    assert "is busy" in answer.text


def test_what_one_server_refuses_another_speaks(proxied: Proxied):
    """A server that leaves loses no answer."""
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: proxied.ask("[S1] leaving server1", f"voice{i}"), range(12)))
    assert {answer.status_code for answer in found} == {200}
    assert {answer.headers["x-server"] for answer in found} == {"server0", "server2"}


def test_a_server_that_is_killed_costs_only_the_streams_that_it_had_begun(proxied: Proxied):
    """The last test of these servers."""

    async def one(client: AsyncMossClient, number: int) -> str:
        references = [Reference(f"clip {number % 20}".encode())]
        try:
            if number % 2:
                speech = await client.generate("[S1] Hi.", references)
                return "whole" if speech.frames == stub_server.CHUNKS else "short"
            chunks = [chunk async for chunk in client.stream("[S1] Hi.", references)]
            return "whole" if len(chunks) == stub_server.CHUNKS and chunks[-1].finish_reason == "stop" else "short"
        except ServerUnreachable:
            return "cut"

    async def all_of_them() -> Counter[str]:
        async with AsyncMossClient(proxied.url, retries=3) as client:
            asked: list[Any] = [asyncio.create_task(one(client, number)) for number in range(N_REQUESTS)]
            await asyncio.sleep(0.5 * stub_server.CHUNKS * stub_server.CHUNK_SECONDS)
            proxied.servers[0].kill()
            found = Counter(await asyncio.gather(*asked))
            found += Counter(await asyncio.gather(*(one(client, number) for number in range(N_REQUESTS))))
            return found

    found = asyncio.run(all_of_them())
    assert found["short"] == 0
    assert 0 < found["cut"] < N_REQUESTS // 2, "streams of one server of three"
    assert found["whole"] == 2 * N_REQUESTS - found["cut"]
