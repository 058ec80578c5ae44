"""The door of a server as services run it, with metrics and a key: what is not understood costs nobody anything."""

import base64
import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import n_running, wait_for, wait_until_idle
from warm_start import warm_server

from sglang_moss.benchmarks.hostile.closed_doors import knock_at_all
from sglang_moss.clients.local_server import LocalServer

pytestmark = pytest.mark.wide

KEY = {"Authorization": "Bearer secret"}
ADMINISTRATOR = {"Authorization": "Bearer administrator"}
SHORT = {"max_new_tokens": 20, "ignore_eos": True, "sampling_seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("door")


@pytest.fixture(scope="module")
def server(fused_path: Path, folder: Path) -> Iterator[LocalServer]:
    arguments = ["--api-key", "secret", "--admin-api-key", "administrator", "--enable-metrics"]
    arguments += ["--voices-dir", str(folder / "voices")]
    with warm_server(fused_path, log=folder / "server.log", extra_args=arguments) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=KEY, timeout=120) as opened:
        yield opened


def generate(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/generate", json={"text": "[S1] Hi.", "sampling_params": SHORT, **fields})


def test_no_route_of_sglangs_and_no_field_of_its_requests_harms_the_server(server: LocalServer, http: httpx.Client):
    before = generate(http).json()["text"]
    found = knock_at_all(server.url, "secret")
    assert (found["wrong"], found["failed"], found["poisoned"]) == (0, 0, 0)
    assert found["bad_inputs"] == found["requests"] > 200
    assert http.get("/health").status_code == 200
    assert generate(http).json()["text"] == before


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"\xff", b"{", b'{"text": "[S1] Hi.", "priority": NaN}', b'{"text": "[S1] Hi.", "x": 1}'],
)
def test_a_body_that_is_none_gets_a_sentence(http: httpx.Client, content: bytes):
    answer = http.post("/generate", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


SHAPE = {"message", "type", "param", "code"}
REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {  # fields, and the param and the code of the answer
    "a type": ({"text": 5}, "text", "bad_text"),
    "no words": ({"text": "[S1]"}, "text", "no_words"),
    "a speaker": ({"text": "[S9] Hi."}, "text", "unknown_speaker"),
    "one of several texts": ({"text": ["[S1] Hi.", "[S1]"]}, "text", "no_words"),
    "too long": ({"text": "[S1] " + "hello there, " * 20_000}, "text", "context_full"),
    "a clip": ({"audio_data": "zzzz"}, "audio_data", "clip_unreadable"),
    "a field": ({"x": 1}, None, "bad_request"),
    "a field of SGLang's": ({"return_logprob": True}, None, "bad_request"),
    "a setting": ({"sampling_params": {"min_p": 0.1}}, None, "bad_setting"),
    "a setting's range": ({"sampling_params": {"temperature": -1}}, None, "bad_setting"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_one_shape_whoever_refuses_it(http: httpx.Client, name: str):
    fields, param, code = REFUSED[name]
    answer = generate(http, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error.keys(), error["param"], error["code"]) == (SHAPE, param, code)
    streamed = generate(http, stream=True, **fields)
    if streamed.status_code == 400:  # before anything was sent
        assert streamed.json() == answer.json()
        return
    event, end = filter(None, streamed.text.split("\n\n"))
    assert json.loads(event.removeprefix("data: ")) == {"error": {**error, "status_code": 400}}
    assert end == "data: [DONE]"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/encode", 404, "not_found"),
        ("GET", "/generate", 405, "method_not_allowed"),
        ("POST", "/abort_request", 401, "wrong_key"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
        ("GET", "/v1/loads?dp_rank=x", 400, "bad_setting"),
        ("GET", "/v1/loads?include=x", 500, "server_failed"),  # a fault of SGLang's
    ],
)
def test_so_has_what_other_routes_refuse(http: httpx.Client, method: str, path: str, status: int, code: str):
    answer = http.request(method, path, json={})
    error = answer.json()["error"]
    assert (answer.status_code, error.keys(), error["code"]) == (status, SHAPE, code)


def test_two_requests_under_one_id_are_both_answered(http: httpx.Client):
    """A client that tries again after a timeout of its own."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: generate(http, rid="job-2025-000000001"), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert {answer.json()["meta_info"]["id"] for answer in answers} == {"job-2025-000000001"}
    assert len({answer.json()["text"] for answer in answers}) == 1


def test_who_leaves_takes_nobody_with_an_id_that_begins_alike(http: httpx.Client):
    endless = {**SHORT, "max_new_tokens": 20_000}
    body = {"text": "[S1] Hi.", "sampling_params": endless, "stream": True, "rid": "job-1"}
    with http.stream("POST", "/generate", json=body) as leaver:
        lines = leaver.iter_lines()  # as soon as nobody has it, the connection is closed
        next(lines)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            longer = {**SHORT, "max_new_tokens": 200}
            other = pool.submit(generate, http, rid="job-10", sampling_params=longer)
            leaver.close()
            del lines
            assert other.result().json()["meta_info"]["audio_frames"] == 200
    wait_until_idle(http)


def test_an_administrator_aborts_and_a_whole_answer_that_was_aborted_is_a_failure(http: httpx.Client):
    endless = {**SHORT, "max_new_tokens": 20_000}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(generate, http, sampling_params=endless)
        while not n_running(http):
            assert not running.done(), running.result().text
        assert http.post("/abort_request", json={"abort_all": True}).status_code == 401
        assert http.post("/abort_request", json={"abort_all": True}, headers=ADMINISTRATOR).status_code == 200
        answer = running.result()
    assert answer.status_code >= 500
    assert "abort" in answer.text.lower()
    wait_until_idle(http)


def test_an_administrator_has_some_steps_profiled_while_requests_run_on(http: httpx.Client, folder: Path):
    settings = {"output_dir": str(folder / "traces"), "num_steps": 3, "activities": ["CPU", "GPU"], "with_stack": False}
    before = generate(http).json()["text"]
    assert http.post("/start_profile", json=settings).status_code == 401
    assert http.post("/start_profile", json=settings, headers=ADMINISTRATOR).status_code == 200
    assert generate(http).json()["text"] == before
    wait_for(lambda: list((folder / "traces").glob("*.trace.json.gz")))


@pytest.mark.parametrize(
    "settings",
    [
        {"output_dir": "/proc/traces"},
        {"output_dir": "/dev/null"},
        {"output_dir": "a\0b"},
        {"output_dir": 3},
        {"num_steps": 0},
        {"num_steps": "3"},
        {"activities": []},
        {"activities": ["RPD"]},
        {"activities": ["CUDA_PROFILER", "CPU"]},
        {"profile_by_stage": True},
        {"start_step": 1},
        [],
    ],
)
def test_a_profile_that_would_end_the_scheduler_is_refused(http: httpx.Client, settings: Any):
    answer = http.post("/start_profile", json=settings, headers=ADMINISTRATOR)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert http.get("/health").status_code == 200


def test_small_bodies_where_no_audio_belongs(http: httpx.Client):
    answer = http.request("GET", "/v1/models", content=b"x" * 1_000_001)
    assert answer.status_code == 413


def test_no_key_is_in_what_is_shown_and_metrics_name_the_model(http: httpx.Client, folder: Path):
    shown = json.dumps(http.get("/server_info").json())
    assert "secret" not in shown
    assert "administrator" not in shown
    log = (folder / "server.log").read_text()
    assert "'secret'" not in log
    assert "administrator" not in log
    samples = [line for line in http.get("/metrics/").text.splitlines() if "model_name=" in line]
    assert samples
    assert {line.split('model_name="')[1].split('"')[0] for line in samples} == {"moss-ttsd"}
    assert base64.b64decode(generate(http).json()["text"])[:4] == b"RIFF"
