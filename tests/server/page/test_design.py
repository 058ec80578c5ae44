"""`POST /page/design` over two servers' real endpoints: one of dialogues, one that makes voices."""

import base64
import io
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_endpoints import leaving, listening, serving, three_events
from fake_manager import NO_HELPERS, FakeManager, event, frames_of
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sglang.srt.utils.auth import add_api_key_middleware
from waiting import wait_for

from sglang_moss.clients.design import SAMPLE_TEXT, SAMPLE_TEXT_CHINESE
from sglang_moss.server.app import add_routes
from sglang_moss.server.page.helpers import check_helpers

pytestmark = pytest.mark.wide

SAILOR = {"description": "an old sailor, hoarse"}


class Servers:
    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.maker = FakeManager(three_events, folder / "maker", profile="voice")
        self.refusal: JSONResponse | None = None  # of the maker, whatever it is to speak
        app = FastAPI()
        add_routes(app, self.maker.server_args, self.maker)
        add_api_key_middleware(app, api_key="the maker's", admin_api_key=None)

        async def maker(scope: Any, receive: Any, send: Any) -> None:
            is_speech = scope.get("path") in ("/generate", "/v1/audio/speech")
            await (self.refusal if self.refusal and is_speech else app)(scope, receive, send)

        self.url = stack.enter_context(listening(maker))
        options = {"helpers": {"design_url": self.url}}
        self.client, _ = stack.enter_context(serving(three_events, folder / "keeper", **options))


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setenv("MOSS_VOICE_API_KEY", "the maker's")
    with ExitStack() as stack:
        yield Servers(stack, tmp_path)


def test_a_voice_is_made_by_the_other_server(servers: Servers):
    assert servers.client.get("/v1/audio/profile").json()["offers"] == ["design"]
    made = [servers.client.post("/page/design", json=SAILOR | {"text": " Ahoy! "}).json() for _ in range(2)]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(made[0]["audio"])), dtype="int16")
    np.testing.assert_array_equal(samples, np.concatenate([frames_of(level) for level in (100, 200, 300)]))
    assert (rate, made[0]["text"], made[0]["seconds"]) == (24_000, "Ahoy!", 0.72)
    assert made[0]["seed"] != made[1]["seed"]
    asked = servers.maker.requests
    assert [request.sampling_params["sampling_seed"] for request in asked] == [one["seed"] for one in made]
    assert asked[0].sampling_params["custom_params"]["instruction"] == SAILOR["description"]


def test_it_says_something_in_the_descriptions_language(servers: Servers):
    texts = [
        servers.client.post("/page/design", json={"description": description}).json()["text"]
        for description in ("an old sailor", "一位老水手")
    ]
    assert texts == [SAMPLE_TEXT, SAMPLE_TEXT_CHINESE]


def test_what_cannot_be_kept_is_refused(servers: Servers):
    servers.maker.script = lambda _request: [event(frames_of(100), {"type": "length"})]
    answer = servers.client.post("/page/design", json=SAILOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_design")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "description: missing"),
        ({"description": " "}, "description: of the voice"),
        ({"description": "a" * 2_001}, "description: "),
        (SAILOR | {"seed": 1}, "unknown fields: seed"),
        (SAILOR | {"text": "[S1] Hi."}, "has no speakers"),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(servers: Servers, body: dict[str, Any], said: str):
    answer = servers.client.post("/page/design", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("said", "told"), [("unbroken_text", "unbroken_text"), ("of_another_version", "bad_setting"), (None, "bad_setting")]
)
def test_what_the_other_server_refuses_keeps_its_code(servers: Servers, said: str | None, told: str):
    servers.refusal = JSONResponse({"error": {"message": "not so", "code": said}}, 400)
    answer = servers.client.post("/page/design", json=SAILOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, told)
    assert answer.json()["error"]["message"] == "not so"


def test_when_the_other_server_takes_it_is_said(servers: Servers):
    servers.refusal = JSONResponse({"error": {"message": "full"}}, 429, {"Retry-After": "7"})
    answer = servers.client.post("/page/design", json=SAILOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert answer.headers["Retry-After"] == "7"


def test_a_failure_of_the_other_server_is_its_own(servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    servers.maker.script = lambda _request: [RuntimeError("secret")]
    failed = servers.client.post("/page/design", json=SAILOR)
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "helper_failed")
    assert "secret" not in failed.text
    monkeypatch.delenv("MOSS_VOICE_API_KEY")
    with serving(three_events, tmp_path / "a", helpers={"design_url": servers.url}) as (client, _):
        assert client.post("/page/design", json=SAILOR).status_code == 502
        dialogues = str(client.base_url)
    with serving(three_events, tmp_path / "b", helpers={"design_url": dialogues}) as (client, _):
        answer = client.post("/page/design", json=SAILOR)
        assert "cannot be reached" in answer.json()["error"]["message"]
        assert dialogues not in answer.text


def test_another_model_makes_no_voices(tmp_path: Path):
    with serving(three_events, tmp_path / "a") as (other, _):
        options = {"helpers": {"design_url": str(other.base_url)}}
        with serving(three_events, tmp_path / "b", **options) as (client, _):
            answer = client.post("/page/design", json=SAILOR)
    assert answer.status_code == 502
    assert "names a server of MOSS-TTSD; name one of MOSS-VoiceGenerator" in answer.json()["error"]["message"]


def test_who_leaves_ends_the_work(servers: Servers):
    servers.maker.script = lambda _request: (event(frames_of(100)) for _ in itertools.count())
    servers.maker.pause_seconds = 0.05
    with leaving(servers.client, "POST", "/page/design", json=SAILOR):
        wait_for(lambda: servers.maker.requests)
    wait_for(lambda: len(servers.maker.closed) == 1)


@pytest.mark.parametrize("profile", ["voice", "sound"])
def test_who_keeps_no_voices_designs_none(tmp_path: Path, profile: str):
    options = {"helpers": {"design_url": "http://127.0.0.1:1"}}
    with serving(three_events, tmp_path, profile=profile, **options) as (client, _):
        assert client.get("/v1/audio/profile").json()["offers"] == []
        assert client.post("/page/design", json=SAILOR).status_code == 404


@pytest.mark.parametrize("url", ["127.0.0.1:30001", "file:///etc", "http://", "http://[", ""])
def test_an_address_that_is_none_is_told_at_the_start(url: str):
    with pytest.raises(ValueError, match="--design-url is no http"):
        check_helpers(SimpleNamespace(**NO_HELPERS | {"design_url": url}))
