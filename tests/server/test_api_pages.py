"""The pages that describe the API: from this server alone, without a key, and of what clients may call."""

import asyncio
import re
import warnings

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from sglang_moss.errors import BadSetting
from sglang_moss.request import settings
from sglang_moss.request.profile import PROFILES, SAMPLING_NAMES, TTSD
from sglang_moss.request.settings import RequestOptions
from sglang_moss.server.api_pages import ApiPages, describe
from sglang_moss.server.generate_schema import body, custom_params, sampling_params

SAMPLING_PARAMS = sampling_params(TTSD)


class Part(BaseModel):
    words: str


class Script(BaseModel):
    parts: list[Part]


class Prompt(BaseModel):
    prompt: str


def _speak(script: Script) -> None: ...


def _complete(prompt: Prompt) -> None: ...


def api() -> FastAPI:
    """Routes as SGLang's application has them before ours: some that are served, some that are not."""
    app = FastAPI(title="FastAPI")
    for path in (
        "/flush_cache",
        "/health",
        "/v1/chat/completions",
        "/v1/models/{model:path}",
        "/v1/audio/voices/{name}",
    ):
        app.add_api_route(path, lambda: {}, methods=["GET"])
    app.add_api_route("/v1/completions", _complete, methods=["POST"])
    router = APIRouter()  # FastAPI keeps what is included apart
    router.add_api_route("/v1/audio/voices", lambda: {}, methods=["POST"])
    router.add_api_route("/generate", lambda: {}, methods=["POST", "PUT", "PATCH"])  # PATCH is not served
    router.add_api_route("/v1/audio/speech", _speak, methods=["POST"])
    app.include_router(router)
    return app


@pytest.fixture
def get():
    async def ask(path: str, method: str = "GET") -> httpx.Response:
        transport = httpx.ASGITransport(ApiPages(api(), api()))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.request(method, path)

    return lambda path, method="GET": asyncio.run(ask(path, method))


def test_what_clients_may_call_is_described_ours_first_and_tagged():
    described = describe(api())
    assert described["info"]["title"] == "sglang-moss"
    tags = {
        path: {tag for method in methods.values() for tag in method["tags"]}
        for path, methods in described["paths"].items()
    }
    assert list(tags) == [
        "/v1/audio/speech",
        "/generate",
        "/v1/audio/voices/{name}",
        "/v1/audio/voices",
        "/health",
        "/v1/models/{model}",
    ]
    assert [*tags.values()] == [{"Speech"}, {"Generate"}, {"Voices"}, {"Voices"}, {"Server"}, {"Server"}]


def test_methods_that_are_not_served_are_not_described_and_every_operation_has_a_name_of_its_own():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = describe(api())["paths"]
    assert list(paths["/generate"]) == ["post", "put"]
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_only_what_they_refer_to_is_described():
    schemas = describe(api())["components"]["schemas"]
    assert {"Script", "Part"} <= schemas.keys()
    assert "Prompt" not in schemas


def test_the_key_is_declared_where_it_is_asked_for():
    described = describe(api())
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert described["paths"]["/generate"]["post"]["security"] == [{"key": []}]
    assert "security" not in described["paths"]["/health"]["get"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_and_all_that_it_loads_comes_from_this_server(get, page: str):
    answer = get(page)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert loaded
    assert not [address for address in loaded if not address.startswith("/")]
    assert {get(address).status_code for address in loaded} == {200}
    assert "http" not in answer.headers["content-security-policy"]


def test_other_paths_go_on_and_unknown_files_are_none(get):
    assert get("/health").json() == {}
    assert get("/docs/files/../../../../etc/passwd").status_code == 404
    assert get("/docs/files/none.js").status_code == 404
    assert get("/docs", "HEAD").status_code == 200
    assert get("/docs", "POST").status_code == 405
    assert get("/openapi.json").json()["info"]["title"] == "sglang-moss"


def test_every_setting_is_described_and_every_described_one_is_taken():
    assert set(SAMPLING_PARAMS) == {*settings._OURS, "n"}
    assert set(custom_params(TTSD)) == {*settings._CUSTOM, *settings._PROMPT_FIELDS}


@pytest.mark.parametrize("name", [name for name, schema in SAMPLING_PARAMS.items() if "minimum" in schema])
def test_a_described_bound_is_the_bound(name: str):
    schema = SAMPLING_PARAMS[name]
    if name == "n":  # several samples become requests of their own
        return
    least = schema["minimum"]
    for value in (least, schema.get("maximum", least)):
        if (name, value) not in {("top_p", 0), ("top_k", 0)}:
            RequestOptions.parse({name: value})
    for value in (least - 1, *([schema["maximum"] + 1] if "maximum" in schema else [])):
        with pytest.raises(BadSetting, match=name):
            RequestOptions.parse({name: value})


@pytest.mark.parametrize("name", [name for name, schema in SAMPLING_PARAMS.items() if "default" in schema])
def test_a_described_default_is_the_default(name: str):
    assert RequestOptions.parse({name: SAMPLING_PARAMS[name]["default"], "sampling_seed": 1}) == RequestOptions.parse(
        {"sampling_seed": 1}
    )


def test_the_defaults_of_a_checkpoint_are_described():
    own = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.0}
    schema = body(TTSD.with_sampling(own))["content"]["application/json"]["schema"]["properties"]["sampling_params"]
    for each in (schema["anyOf"][0], schema["anyOf"][1]["items"]):
        assert {name: each["properties"][name]["default"] for name in SAMPLING_NAMES} == own


@pytest.mark.parametrize("name", PROFILES)
def test_the_text_channels_defaults_are_described_where_it_has_its_own(name: str):
    profile = PROFILES[name]
    told = {key: schema.get("default") for key, schema in custom_params(profile).items() if key.startswith("text_")}
    own = profile.text
    assert told == {
        "text_temperature": own and own.temperature,
        "text_top_p": own and own.top_p,
        "text_top_k": own and own.top_k,
    }
