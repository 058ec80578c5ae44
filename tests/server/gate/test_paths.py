"""Who may call which route: every route of SGLang's application with ours on it, one by one."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_manager import FakeManager
from fresh_process import in_fresh_process

from sglang_moss.server.app import add_routes
from sglang_moss.server.gate import paths
from sglang_moss.server.gate.paths import ROUTES, Caller, Work, route_of, routes_at, served_route

pytestmark = pytest.mark.wide

ADMIN = {"Authorization": "Bearer administrator"}
CLIENT = {"Authorization": "Bearer client"}

# What SGLang's application has beside what is served. A route that a release adds is closed by itself, and fails here
# until somebody has looked at it.
CLOSED = (
    "/add_external_corpus",
    "/api/chat",
    "/api/generate",
    "/api/show",
    "/api/tags",
    "/begin_weight_update",
    "/classify",
    "/close_session",
    "/configure_logging",
    "/continue_generation",
    "/destroy_weights_update_group",
    "/detokenize",
    "/dump_expert_distribution_record",
    "/encode",
    "/end_weight_update",
    "/get_hicache_l3_cache_layout",
    "/get_remote_instance_transfer_engine_info",
    "/get_weights_by_name",
    "/hicache/storage-backend",
    "/hicache/storage-backend/clear",
    "/init_weights_send_group_for_remote_instance",
    "/init_weights_update_group",
    "/invocations",
    "/list_external_corpora",
    "/load_lora_adapter",
    "/load_lora_adapter_from_tensors",
    "/open_session",
    "/parse_function_call",
    "/pause_generation",
    "/pd_role_switch",
    "/release_memory_occupation",
    "/remote_instance_transfer_engine_info",
    "/remove_external_corpus",
    "/resume_memory_occupation",
    "/send_weights_to_remote_instance",
    "/separate_reasoning",
    "/set_internal_state",
    "/set_trace_level",
    "/slow_down",
    "/start_expert_distribution_record",
    "/stop_expert_distribution_record",
    "/tokenize",
    "/unload_lora_adapter",
    "/update_weight_version",
    "/update_weights_from_disk",
    "/update_weights_from_distributed",
    "/update_weights_from_ipc",
    "/update_weights_from_tensor",
    "/v1/audio/transcriptions",
    "/v1/chat/completions",
    "/v1/classify",
    "/v1/completions",
    "/v1/decisions",
    "/v1/detokenize",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/v1/responses",
    "/v1/responses/{response_id}",
    "/v1/responses/{response_id}/cancel",
    "/v1/score",
    "/v1/systemone",
    "/v1/tokenize",
    "/vertex_generate",
    "/weights_checker",
)


def scope_of(method: str, path: str) -> Any:
    return {"type": "http", "method": method, "path": path}


def paths_of_the_application(folder: str) -> list[str]:
    from sglang.srt.entrypoints.http_server import app

    manager: Any = FakeManager(lambda _: [], Path(folder))
    add_routes(app, manager.server_args, manager)
    documented = set(app.openapi()["paths"])
    return sorted(documented | {getattr(route, "path", None) or "/" for route in app.routes})


def test_every_route_of_the_application_is_served_or_known_to_be_closed(tmp_path: Path):
    found = in_fresh_process(paths_of_the_application, str(tmp_path))
    closed = {path for path in found if not routes_at(path.replace("{model}", "a")) and path != "/"}
    assert not {path for path in closed if path not in CLOSED and "realtime" not in path and "elastic" not in path}
    assert {route.path for route in ROUTES if route.caller is Caller.ADMINISTRATOR} <= set(found)
    assert not [path for path in CLOSED if routes_at(path)]


def statuses(folder: str, admin_key: str | None, headers: dict[str, str]) -> dict[str, int]:
    """Of every route of the application, asked with each of its methods and an odd body."""
    from sglang.srt.entrypoints.http_server import app

    manager: Any = FakeManager(lambda _: [], Path(folder))
    manager.server_args.admin_api_key = admin_key
    add_routes(app, manager.server_args, manager)

    async def ask() -> dict[str, int]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        found = {}
        async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as client:
            for path, methods in app.openapi()["paths"].items():
                for method in methods:
                    url = path.replace("{response_id}", "a").replace("{model}", "a")
                    is_open = any(route.caller is not Caller.ADMINISTRATOR for route in routes_at(url))
                    if url != "/" and not is_open:  # there is the page
                        answer = await client.request(method.upper(), url, content=b"{}")
                        found[f"{method.upper()} {path}"] = answer.status_code
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("headers", [{}, CLIENT, ADMIN], ids=["no key", "the client's", "an administrator's"])
def test_without_an_administrators_key_there_is_no_administration(headers, tmp_path: Path):
    found = in_fresh_process(statuses, str(tmp_path), None, headers)
    assert set(found.values()) <= {404, 405}
    assert found["POST /resume_memory_occupation"] == found["POST /flush_cache"] == 404


@pytest.mark.parametrize("headers", [{}, CLIENT], ids=["no key", "the client's"])
def test_administration_needs_the_administrators_key(headers, tmp_path: Path):
    found = in_fresh_process(statuses, str(tmp_path), "administrator", headers)
    assert {route: status for route, status in found.items() if status not in (404, 405)} == {
        f"{method} {route.path}": 401
        for route in ROUTES
        if route.caller is Caller.ADMINISTRATOR
        for method in route.methods
    }


def test_the_administrators_key_opens_what_is_on_the_list_and_nothing_else(tmp_path: Path):
    found = in_fresh_process(statuses, str(tmp_path), "administrator", ADMIN)
    opened = {route.split()[1] for route, status in found.items() if status not in (404, 405)}
    assert opened == {route.path for route in ROUTES if route.caller is Caller.ADMINISTRATOR}


@pytest.mark.parametrize(
    ("path", "method", "name", "work"),
    [
        ("/generate", "POST", "/generate", Work.SPEECH),
        ("/v1/audio/speech", "POST", "/v1/audio/speech", Work.SPEECH),
        ("/v1/audio/voices", "POST", "/v1/audio/voices", Work.VOICE),
        ("/v1/audio/voices/anna", "DELETE", "/v1/audio/voices/{name}", Work.LIMITED),
        ("/page/encode", "POST", "/page/encode", Work.ENCODING),
        ("/page/turns", "POST", "/page/turns", Work.ENCODING),
        ("/page/design", "POST", "/page/design", Work.LIMITED),
        ("/page/script", "POST", "/page/script", Work.FILE),
        ("/page/transcript", "POST", "/page/transcript", Work.FILE),
        ("/v1/models/a/model", "GET", None, Work.NONE),
        ("/health", "GET", None, Work.NONE),
    ],
)
def test_a_route_is_named_without_what_the_client_chose(path, method, name, work):
    route = served_route(scope_of(method, path))
    assert route is not None
    assert (route_of(scope_of(method, path)), route.work) == (name, work)


@pytest.mark.parametrize(
    "path",
    [
        "/generate/",
        "//generate",
        "/generate/../flush_cache",
        "/v1/audio/voices/",
        "/v1/audio/voices/a/b",
        "/v1/models/",
        "/GENERATE",
        "",
        "/v1",
    ],
)
def test_a_path_that_only_looks_like_one_is_not_served(path):
    assert served_route(scope_of("GET", path)) is None
    assert served_route(scope_of("POST", path)) is None


@pytest.mark.parametrize(
    "path", [*(route.path for route in ROUTES), "/docs/", "/v1/models/a/b", "/v1/audio/voices/a", ""]
)
def test_a_path_has_the_routes_that_match_it(path: str):
    assert routes_at(path) == [route for route in ROUTES if paths._matches(route.path.split("/"), path.split("/"))]
