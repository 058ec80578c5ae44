"""A page of another origin reads refusals too, in OpenAI's shape."""

from collections.abc import Iterator

import httpx
import openai
import pytest
from fake_endpoints import listening, three_events
from fake_manager import FakeManager
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from sglang.srt.utils.auth import add_api_key_middleware

from sglang_moss.server.app import add_routes

pytestmark = pytest.mark.wide

ORIGIN = {"Origin": "https://page.example"}
KEY = "sekrit"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An application with SGLang's CORS headers and its check of the key, in SGLang's order."""
    manager = FakeManager(lambda _request: three_events(None), tmp_path_factory.mktemp("cors") / "voices")
    app = FastAPI()
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )

    @app.get("/v1/models")
    def models() -> dict[str, str]:
        return {}

    add_routes(app, manager.server_args, manager)
    add_api_key_middleware(app, api_key=KEY, admin_api_key=None)
    with listening(app) as url, httpx.Client(base_url=url, timeout=30, headers=ORIGIN) as client:
        yield client


REQUESTS = [("GET", "/v1/models"), ("POST", "/v1/audio/speech"), ("GET", "/v1/nothing"), ("POST", "/generate")]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize(("key", "word"), [(None, "none came"), ("Bearer wrong", "another"), (KEY, "another")])
def test_a_wrong_key_is_told_in_words(client: httpx.Client, method: str, path: str, key: str | None, word: str):
    answer = client.request(method, path, headers={} if key is None else {"Authorization": key})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "access-control-allow-origin" in answer.headers
    error = answer.json()["error"]
    assert word in error["message"]
    assert "Authorization: Bearer" in error["message"]
    if path.startswith("/v1/"):
        assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("DELETE", "/v1/audio/voices/nobody", 404), ("POST", "/v1/audio/speech", 400),
     ("GET", "/v1/audio/voices", 200)],
)  # fmt: skip
def test_every_answer_may_be_read_by_a_page(client: httpx.Client, method: str, path: str, status: int):
    answer = client.request(method, path, headers={"Authorization": f"Bearer {KEY}"}, json={"input": 3})
    assert answer.status_code == status
    assert "access-control-allow-origin" in answer.headers
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"x-request-id", "retry-after", "x-finish-reason", "x-seed"} <= set(exposed.split(", "))
    if status >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_preflight_needs_no_key(client: httpx.Client):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = client.options("/v1/audio/speech", headers=ask)
    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"]


def test_the_official_client_reads_the_sentence(client: httpx.Client):
    with (
        openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key="wrong", max_retries=0) as official,
        pytest.raises(openai.AuthenticationError, match="asks for a key"),
    ):
        official.models.list()


def test_speech_with_the_key_is_spoken(client: httpx.Client):
    answer = client.post("/v1/audio/speech", json={"input": "a"}, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
