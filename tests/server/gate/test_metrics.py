"""What is said of a request afterwards: its id, its line in the log, its metrics; and the codec's gauges."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry

from sglang_moss.request.record import RequestRecord, current_record, open_record
from sglang_moss.server.gate.access_log import LOGGER, AccessLog
from sglang_moss.server.gate.metrics import SpeechMetrics

SECRET = "[S1] What nobody shall read."


def event(seconds: float, end: dict[str, Any] | None = None, rid: str = "a") -> dict[str, Any]:
    meta = {"id": rid, "audio_seconds": seconds, "audio_frames": round(seconds * 12.5), "finish_reason": end}
    return {"text": "", "meta_info": {**meta, "prompt_tokens": 7, "cached_tokens": 3}}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lines of the access log, to be read after the requests."""
    logger = logging.getLogger(LOGGER)
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector = Collector()
    logger.addHandler(collector)
    caplog.set_level(logging.INFO, LOGGER)
    yield found
    logger.removeHandler(collector)


def application() -> FastAPI:
    app = FastAPI()

    @app.post("/generate")
    async def generate(request: Request) -> Any:
        kind = (await request.json())["kind"]
        record = current_record()
        record.take_references([True, False, False])
        if kind == "stream":
            record.is_streamed = True

            async def events() -> Any:
                for one in (event(0.32), event(0.64), event(0.64, {"type": "stop"})):
                    record.take(one)
                    yield b"data"

            return StreamingResponse(events())
        if kind == "whole":
            for rid in "ab":
                record.take(event(0.8, {"type": "length"}, rid))
            return "spoken"
        if kind == "aborted":
            record.take(event(0.8))
            record.take(event(0.8, {"type": "abort", "message": SECRET}))
            return "spoken"
        if kind == "fails":
            raise RuntimeError(SECRET)
        raise HTTPException(400, SECRET)

    @app.delete("/v1/audio/voices/{name}")
    async def remove(name: str) -> str:
        return name

    @app.get("/elsewhere")
    async def elsewhere() -> str:
        return "a"

    return app


def ask(metrics: SpeechMetrics | None, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(AccessLog(application(), metrics, writes=True), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(run())


def speak(kind: str) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/generate", {"json": {"kind": kind, "text": SECRET}}


def test_every_answer_has_an_id_and_a_sane_one_of_the_client_is_kept():
    ids = {"my-request/1": True, "a" * 128: True, "a" * 129: False, "a b": False, "": False, "ü": False}
    requests = [("GET", "/elsewhere", {"headers": {"X-Request-Id": given.encode()}}) for given in ids]
    answers = ask(None, *requests, speak("fails"), speak("refused"), ("GET", "/nowhere", {}))
    for answer, (given, is_kept) in zip(answers, ids.items(), strict=False):
        found = answer.headers["x-request-id"]
        assert found == given if is_kept else re.fullmatch("[0-9a-f]{32}", found)
    others = [answer.headers["x-request-id"] for answer in answers[len(ids) :]]
    assert [answer.status_code for answer in answers[len(ids) :]] == [500, 400, 404]
    assert len(set(others)) == 3


def test_each_request_of_ours_is_one_line_without_its_words(lines: list[str]):
    answers = ask(
        None,
        speak("stream"),
        speak("whole"),
        speak("aborted"),
        speak("fails"),
        speak("refused"),
        ("DELETE", "/v1/audio/voices/alice-s-own-name", {}),
        ("GET", "/elsewhere", {}),
    )
    found = [json.loads(line) for line in lines]
    assert [line["id"] for line in found] == [answer.headers["x-request-id"] for answer in answers[:-1]]
    outcomes = ["ok", "ok", "failed", "failed", "refused", "ok"]
    assert [line["outcome"] for line in found] == outcomes
    assert [line.get("reason") for line in found] == [None, None, "aborted", "server_error", "bad_request", None]
    assert [line["status"] for line in found] == [200, 200, 200, 500, 400, 200]
    stream, whole, *_, voice = found
    assert stream["audio_seconds"] == 0.64
    assert 0 <= stream["ttfa_seconds"] <= stream["seconds"]
    assert whole["audio_seconds"] == 1.6
    assert "ttfa_seconds" not in whole
    assert (whole["prompt_tokens"], whole["cached_tokens"], whole["finish_reason"]) == (14, 6, "length")
    assert (voice["method"], voice["route"]) == ("DELETE", "/v1/audio/voices/{name}")
    assert all(line["client"] == "127.0.0.1" for line in found)
    for word in ("nobody", "alice"):
        assert word not in "".join(lines)


def test_a_client_that_leaves_is_said_to_have_left(lines: list[str]):
    left: list[float] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        left.append(time.monotonic())
        await asyncio.sleep(0.5)  # SGLang's own way to end a stream
        raise ConnectionError

    async def run() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(_message: Any) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/generate", "headers": [], "client": None}
        with pytest.raises(ConnectionError):
            await AccessLog(app, None, writes=True)(scope, receive, send)

    came = time.monotonic()
    asyncio.run(run())
    [line] = [json.loads(line) for line in lines]
    assert line["outcome"] == "left"
    assert line["seconds"] <= left[0] - came + 1e-4  # and a rounding: not what the application did then


def test_metrics_count_what_was_spoken_and_refused():
    registry = CollectorRegistry()
    metrics = SpeechMetrics("a model", registry)
    ask(metrics, speak("stream"), speak("whole"), speak("fails"), speak("refused"), ("GET", "/elsewhere", {}))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"moss_ttsd:{name}", {"model_name": "a model", **labels})

    assert value("audio_seconds_total") == pytest.approx(0.64 + 1.6)
    assert value("audio_frames_total") == 8 + 20
    assert value("requests_total", route="/generate", outcome="ok") == 2
    assert value("requests_total", route="/generate", outcome="failed") == 1
    assert value("requests_total", route="/generate", outcome="refused") == 1
    assert value("refusals_total", reason="bad_request") == 1
    assert value("refusals_total", reason="server_error") == 1
    assert value("reference_cache_hits_total") == 4
    assert value("reference_cache_misses_total") == 8
    assert value("ttfa_seconds_count") == 1
    assert value("rtf_count") == 2


def test_audio_counts_while_it_is_made():
    registry = CollectorRegistry()
    record = RequestRecord(on_audio=SpeechMetrics("a", registry).count_audio)
    for seconds, total in ((0.32, 0.32), (0.32, 0.32), (0.96, 0.96)):
        record.take(event(seconds))
        assert registry.get_sample_value("moss_ttsd:audio_seconds_total", {"model_name": "a"}) == pytest.approx(total)


def test_what_is_done_outside_a_request_is_nobodys():
    current_record().take(event(1.0))
    assert current_record().audio_seconds == 0


def test_a_record_follows_its_request_into_tasks():
    async def run() -> float:
        record = RequestRecord()
        open_record(record)
        await asyncio.gather(*(asyncio.create_task(work(rid)) for rid in "ab"))
        return record.audio_seconds

    async def work(rid: str) -> None:
        current_record().take(event(0.5, rid=rid))

    assert asyncio.run(run()) == 1.0


OTHER_PROCESS = """
from sglang_moss.decode.gauges import CodecGauges, CodecLoad
gauges = CodecGauges({"model_name": "a"}, 16)
for used in (3, 3, 2):
    gauges.show(CodecLoad(used, 5, 1))
"""


def test_the_codecs_gauges_are_read_in_another_process(tmp_path: Path):
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", OTHER_PROCESS], check=True, env=env)
    read = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry()\nmultiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    text = subprocess.run([sys.executable, "-c", read], check=True, env=env, capture_output=True, text=True).stdout
    for name, value in (
        ("codec_slots", 16), ("codec_slots_used", 2), ("codec_streams_waiting", 5), ("codec_references_waiting", 1)
    ):  # fmt: skip
        assert f'moss_ttsd:{name}{{model_name="a"}} {value:.1f}' in text
