"""Running the server unattended: keys, health, metrics, a full queue, and an end that loses nothing it could finish."""

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import zmq
from fake_manager import FakeManager
from fastapi import FastAPI
from fresh_process import in_fresh_process
from golden_data import GOLDEN
from server_processes import leader_of, lives
from starlette.middleware import Middleware
from waiting import n_running, wait_for
from warm_start import warm_server

from sglang_moss.clients.local_server import LocalServer
from sglang_moss.server.app import add_routes
from sglang_moss.server.gate.health import CodecHealth

pytestmark = pytest.mark.wide

KEY = {"Authorization": "Bearer secret"}
TEXT = "[S1] Words that stay between us."
OPEN = ("/health", "/health_generate", "/metrics", "/ready")  # to probes, which have no key


def statuses_without_a_key(folder: str) -> dict[str, int]:
    """Of every route that SGLang's application has once ours are on it."""
    from sglang.srt.entrypoints.http_server import app
    from sglang.srt.utils.auth import add_api_key_middleware

    manager: Any = FakeManager(lambda _: [], Path(folder))
    add_routes(app, manager.server_args, manager)
    add_api_key_middleware(app, api_key="secret", admin_api_key=None)

    async def ask() -> dict[str, int]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            found = {}
            for path, methods in app.openapi()["paths"].items():
                for method in methods:
                    if path not in OPEN:
                        url = re.sub(r"{[^}]*}", "a", path)
                        found[f"{method} {path}"] = (await client.request(method.upper(), url)).status_code
            for path in ("/docs", "/openapi.json", "/redoc"):
                found[path] = (await client.get(path)).status_code
            return found

    return asyncio.run(ask())


def test_no_route_answers_without_the_key(tmp_path: Path):
    found = in_fresh_process(statuses_without_a_key, str(tmp_path))
    for ours in ("post /v1/audio/speech", "post /v1/audio/voices", "delete /v1/audio/voices/{name}", "post /generate"):
        assert ours in found
    open_to_all = {route for route, status in found.items() if status not in (401, 403)}
    # The page and the API's description, which hold no data.
    assert open_to_all == {"get /", "head /", "/docs", "/openapi.json", "/redoc"}


def health_of(address: str, seconds: float) -> list[int]:
    app = FastAPI()
    app.add_api_route("/health", lambda: "SGLang's")
    app.add_api_route("/health_generate", lambda: "SGLang's")
    app.user_middleware.append(Middleware(CodecHealth, [address], seconds))

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return [(await client.get(path)).status_code for path in ("/health", "/health_generate")]

    return asyncio.run(ask())


@pytest.mark.parametrize(("answer", "status"), [([b"", b"{}"], 200), ([b"a failure"], 503), (None, 503)])
def test_health_asks_the_codec(tmp_path: Path, answer: list[bytes] | None, status: int):
    address = f"ipc://{tmp_path / 'codec'}"
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.bind(address)

    asked = threading.Event()

    def work() -> None:
        while not asked.is_set():
            if not socket.poll(20):
                continue
            client, job, *_ = socket.recv_multipart()
            if answer is not None:
                socket.send_multipart([client, job, *answer])

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        try:
            assert health_of(address, 0.5 if answer is None else 60) == [status, status]
        finally:
            asked.set()
    socket.close(linger=0)


def test_health_without_a_codec_is_503(tmp_path: Path):
    assert health_of(f"ipc://{tmp_path / 'nobody'}", 0.5) == [503, 503]


@pytest.fixture(scope="module")
def server(fused_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("operations")
    arguments = ["--api-key", "secret", "--enable-metrics", "--voices-dir", str(folder / "voices")]
    arguments += ["--max-running-requests", "2", "--max-queued-speech", "1", "--max-request-bytes", "1000000"]
    arguments += ["--shutdown-seconds", "6"]
    leaves = {"WARM_LEAVES": "1"}
    with warm_server(fused_path, log=folder / "server.log", env=leaves, extra_args=arguments) as running:
        leader = leader_of(running)
        yield running
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=KEY, timeout=60) as opened:
        yield opened


def body(n_frames: int = 10, **more: Any) -> dict[str, Any]:
    return {"text": TEXT, "sampling_params": {"max_new_tokens": n_frames, "ignore_eos": True}, **more}


ENDLESS = body(20_000)


def metrics(client: httpx.Client) -> dict[str, float]:
    """Ours, by name and labels but the model's."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("moss_ttsd:")]
    pairs = (re.sub(r'model_name="[^"]*",?', "", line).replace("{}", "").rsplit(" ", 1) for line in lines)
    return {name: float(value) for name, value in pairs}


def pid_of(server: LocalServer) -> int:
    assert server._process is not None
    return server._process.pid


def exit_code_of(pid: int) -> int:
    """Waits for the end of a child, and leaves it to be reaped; -9 for SIGKILL."""
    ends: list[Any] = []
    wait_for(lambda: ends.append(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) or ends[-1], 60)
    return ends[-1].si_status if ends[-1].si_code == os.CLD_EXITED else -ends[-1].si_status


def log_lines(server: LocalServer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith('{"time"')]


@pytest.mark.server
def test_metrics_and_log_tell_what_was_spoken(client: httpx.Client, server: LocalServer):
    clip = base64.b64encode((GOLDEN / "cases" / "audio" / "spk1_24k.wav").read_bytes()).decode()
    before = metrics(client)
    for i, more in enumerate(({}, {"audio_data": [clip]}, {"audio_data": [clip]}, {"stream": True})):
        answer = client.post("/generate", json=body(**more), headers={"X-Request-Id": f"request-{i}"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, f"request-{i}")
    after = metrics(client)
    grown = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert grown["moss_ttsd:audio_frames_total"] == 40
    assert grown["moss_ttsd:audio_seconds_total"] == pytest.approx(3.2)
    assert grown['moss_ttsd:requests_total{outcome="ok",route="/generate"}'] == 4
    assert grown["moss_ttsd:ttfa_seconds_count"] == 1
    assert grown["moss_ttsd:rtf_count"] == 4
    assert grown["moss_ttsd:reference_cache_misses_total"] >= 1
    assert grown["moss_ttsd:reference_cache_hits_total"] >= 1
    assert after["moss_ttsd:codec_slots"] == 2
    wait_for(lambda: log_lines(server)[-1]["id"] == "request-3")  # a line is written once its answer has left
    *_, line = log_lines(server)
    assert (line["outcome"], line["audio_seconds"], line["finish_reason"]) == ("ok", 0.8, "stop")


@pytest.mark.server
def test_a_full_server_says_when_to_come_again_and_counts_batches(client: httpx.Client):
    endless = {**ENDLESS, "stream": True}
    with (
        client.stream("POST", "/generate", json=endless) as one,
        client.stream("POST", "/generate", json=endless) as two,
    ):
        running = [one.iter_lines(), two.iter_lines()]
        assert all(next(lines).startswith("data: ") for lines in running)
        wait_for(lambda: metrics(client)["moss_ttsd:codec_slots_used"] == 2)
        batch = client.post("/generate", json={**body(), "text": [TEXT, TEXT]})
        assert batch.status_code == 429
        assert int(batch.headers["retry-after"]) >= 1
        streamed = client.post("/generate", json={**body(), "text": [TEXT, TEXT], "stream": True}).text
        error = json.loads(streamed.split("\n\n")[0].removeprefix("data: "))["error"]
        assert (error["status_code"], error["code"]) == (429, "queue_full")
        with client.stream("POST", "/generate", json=endless):  # waits
            for path, sent in (("/generate", body()), ("/v1/audio/speech", {"input": "a"})):
                refused = client.post(path, json=sent)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["code"] == "queue_full"
            assert client.get("/v1/audio/voices").status_code == 200
            assert client.get("/health").status_code == 200
    wait_for(lambda: client.post("/generate", json=body()).status_code == 200)
    wait_for(lambda: metrics(client)["moss_ttsd:codec_slots_used"] == 0)
    left = 'moss_ttsd:requests_total{outcome="left",route="/generate"}'
    wait_for(lambda: metrics(client).get(left, 0) >= 3)
    found = metrics(client)
    assert found['moss_ttsd:refusals_total{reason="queue_full"}'] >= 4
    assert found[left] == 3


@pytest.mark.server
def test_generate_does_not_read_a_body_beyond_its_bound(client: httpx.Client):
    answer = client.post("/generate", content=b" " * 1_000_001, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "1000000" in answer.json()["error"]["message"]


@pytest.mark.server
def test_ctrl_c_finishes_what_it_can_and_tells_the_rest_that_it_is_over(client: httpx.Client, server: LocalServer):
    leader = leader_of(server)
    children = leader.children(recursive=True)
    [socket] = {Path(c.laddr) for child in children for c in child.net_connections("unix") if "moss" in c.laddr}
    assert socket.exists()
    with concurrent.futures.ThreadPoolExecutor(4) as pool, httpx.Client(base_url=server.url, headers=KEY) as other:
        whole = pool.submit(client.post, "/generate", json=ENDLESS)
        stream = pool.submit(client.post, "/generate", json={**ENDLESS, "stream": True})
        wait_for(lambda: n_running(client) == 2, 30)
        short = pool.submit(client.post, "/generate", json=body(5))
        time.sleep(0.3)
        os.killpg(leader.pid, signal.SIGINT)  # as a terminal does
        wait_for(lambda: other.get("/health").status_code == 503, 30)
        refused = other.post("/v1/audio/speech", json={"input": "a"})
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert int(refused.headers["retry-after"]) >= 1
        assert whole.result(60).status_code == 503
        assert whole.result().json()["error"]["code"] == "shutting_down"
        *_, last, done = [line for line in stream.result(60).text.split("\n\n") if line]
        assert done == "data: [DONE]"
        reason = json.loads(last.removeprefix("data: "))["meta_info"]["finish_reason"]
        assert (reason["type"], reason["status_code"], reason["code"]) == ("abort", 503, "shutting_down")
        assert short.result(60).status_code in (200, 503)  # waits for a place in the batch
    assert exit_code_of(pid_of(server)) == 0
    assert not any(map(lives, children))
    assert not socket.exists()
    log = server.log.read_text()
    assert "stay between us" not in log
    assert "secret" not in log
    assert "shutting down failed" not in log
    assert "KeyboardInterrupt" not in log


@pytest.mark.server
def test_sigterm_lets_a_running_request_finish(fused_path: Path, tmp_path: Path):
    arguments = ["--voices-dir", str(tmp_path / "voices"), "--shutdown-seconds", "60"]
    with (
        warm_server(fused_path, log=tmp_path / "server.log", extra_args=arguments) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", "/generate", json={**body(120), "stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        os.kill(pid_of(server), signal.SIGTERM)
        *_, last, done = [line for line in lines if line]
        assert done == "data: [DONE]"
        meta = json.loads(last.removeprefix("data: "))["meta_info"]
        assert (meta["finish_reason"]["type"], meta["audio_frames"]) == ("stop", 120)
        assert exit_code_of(pid_of(server)) == 0


@pytest.mark.server
def test_a_second_signal_waits_for_nobody(fused_path: Path, tmp_path: Path):
    arguments = ["--voices-dir", str(tmp_path / "voices"), "--shutdown-seconds", "3600"]
    with (
        warm_server(fused_path, log=tmp_path / "server.log", extra_args=arguments) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", "/generate", json={**ENDLESS, "stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        children = leader_of(server).children(recursive=True)
        os.kill(pid_of(server), signal.SIGTERM)
        wait_for(lambda: client.get("/health").status_code == 503)
        os.kill(pid_of(server), signal.SIGTERM)
        *_, last, done = [line for line in lines if line]
        assert done == "data: [DONE]"
        assert json.loads(last.removeprefix("data: "))["meta_info"]["finish_reason"]["status_code"] == 503
        assert exit_code_of(pid_of(server)) == 0
    wait_for(lambda: not any(map(lives, children)))


def test_sglangs_manager_takes_our_way_out():
    """What of it is private."""
    from sglang.srt.managers.tokenizer_manager import SignalHandler, TokenizerManager

    assert callable(TokenizerManager._handle_abort_req)
    assert callable(TokenizerManager._dispatch_to_scheduler)
    assert SignalHandler(SimpleNamespace()).tokenizer_manager is not None
