"""Every endpoint of ours asked whatever its OpenAPI schema allows, and what it does not; `/generate` whatever JSON is.

The schema of `/generate` is SGLang's and promises what this model does not do, so its body is made here.
"""

import dataclasses
from typing import Any

import pytest
import schemathesis
from fake_manager import STOP, FakeManager, event, frames_of
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sglang.srt.managers.io_struct import GenerateReqInput
from starlette.testclient import TestClient

from sglang_moss.benchmarks.hostile.bad_fields import CHECKS
from sglang_moss.generate_body import prepare
from sglang_moss.request.settings import RequestOptions
from sglang_moss.server.app import add_routes

pytestmark = pytest.mark.wide

OPERATIONS = (
    ("POST", "/v1/audio/speech"),
    ("GET", "/v1/audio/profile"),
    ("GET", "/v1/audio/voices"),
    ("POST", "/v1/audio/voices"),
    ("GET", "/v1/audio/voices/{name}"),
    ("PUT", "/v1/audio/voices/{name}"),
    ("DELETE", "/v1/audio/voices/{name}"),
    ("GET", "/v1/audio/voices/{name}/clip"),
)
ON_A_REAL_SERVER = {("POST", "/generate"), ("PUT", "/generate")}  # see `test_door`


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    events = [event(frames_of(100)), event(frames_of(200), STOP)]
    manager = FakeManager(lambda _request: events, tmp_path_factory.mktemp("voices"))
    app = FastAPI()
    add_routes(app, manager.server_args, manager)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    schema.config.generation.with_security_parameters = False  # this server has no key, so none may be missing
    return schema


def test_every_operation_is_asked(api: schemathesis.BaseSchema):
    found = {(operation.ok().method.upper(), operation.ok().path) for operation in api.get_all_operations()}
    assert found == set(OPERATIONS) | ON_A_REAL_SERVER


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
QUESTIONS = [(*operation, POSITIVE) for operation in OPERATIONS]
QUESTIONS += [(*operation, NEGATIVE) for operation in OPERATIONS if operation[0] == "POST"]  # the others ask nothing


@pytest.mark.parametrize(("method", "path", "mode"), QUESTIONS)
@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)
@given(data=st.data())
def test_answers_are_what_the_schema_says(
    api: Any, method: str, path: str, mode: schemathesis.GenerationMode, data: st.DataObject
):
    case = data.draw(api[path][method].as_strategy(mode))
    case.call_and_validate(checks=CHECKS)


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400])
scalars = numbers | st.text(max_size=20) | st.sampled_from(["x" * 100_000, "\ud800", "\0", "[S1] Hi.", "voice_clone"])
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
PARAMS = (
    "n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
    "sampling_seed", "max_new_tokens", "min_new_tokens", "ignore_eos", "stop", "stop_token_ids", "stop_regex", "regex",
    "json_schema", "ebnf", "structural_tag", "logit_bias", "skip_special_tokens", "stream_interval", "custom_params",
)  # fmt: skip
CUSTOM = (
    "mode", "return_codes", "timings", "chunk_frames", "first_frames", "text_temperature", "text_top_p", "text_top_k",
    "__req__",
)  # fmt: skip
custom_params = st.dictionaries(st.sampled_from(CUSTOM) | st.text(max_size=9), anything, max_size=3)
sampling_params = st.dictionaries(
    st.sampled_from(PARAMS) | st.text(max_size=9), anything, max_size=4
) | custom_params.map(lambda custom: {"custom_params": custom})
bodies = st.fixed_dictionaries(
    {"text": st.just("[S1] Hi.") | st.lists(st.just("[S1] Hi."), max_size=3) | anything},
    optional={
        "audio_data": anything,
        "sampling_params": sampling_params | st.lists(sampling_params, max_size=3) | anything,
        "rid": anything,
        "extra_key": anything,
        "stream": anything,
    },
)
FIELDS = [field.name for field in dataclasses.fields(GenerateReqInput)]
as_fastapi_reads_it = TypeAdapter(GenerateReqInput)


@settings(max_examples=500, derandomize=True, suppress_health_check=list(HealthCheck))
@example(body={"text": "a", "sampling_params": {"custom_params": {"mode": "x" * 100_000}}}, more={})
@given(body=bodies, more=st.dictionaries(st.sampled_from(FIELDS), anything, max_size=2))
def test_any_body_of_generate_is_taken_or_refused_in_a_sentence(body: dict[str, Any], more: dict[str, Any]):
    try:
        request: Any = as_fastapi_reads_it.validate_python({**more, **body})
    except ValidationError:
        return  # FastAPI's 4xx
    try:
        prepare(request)
        request.normalize_batch_and_arguments()
        for i in range(1 if request.is_single else request.batch_size):
            single = request if request.is_single else request[i]
            options = RequestOptions.parse(single.sampling_params)
            assert 0 <= options.audio.temperature <= 100
            assert 0 < options.text.top_p <= 1
    except ValueError as refusal:  # ours, or SGLang's
        message = str(refusal)
    else:
        return
    assert 0 < len(message) < 400


NESTED = b"[" * 200_000 + b"]" * 200_000
BAD_JSON = {
    "nested": b'{"input": ' + NESTED + b"}",
    "nested in a field": b'{"input": "a", "voices": {"S1": ' + NESTED + b"}}",
    "a number without end": b'{"input": "a", "seed": ' + b"9" * 100_000 + b"}",
    "a number beyond floats": b'{"input": "a", "max_seconds": 1e999999}',
    "NaN": b'{"input": "a", "max_seconds": NaN}',
    "infinity": b'{"input": "a", "split_seconds": Infinity}',
    "keys twice": b'{"input": 1, "input": "a", "input": 2}',
    "UTF-16": '{"input": "a", "x": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"input": 1}',
    "Latin-1": '{"input": "\xe4"}'.encode("latin-1"),
    "a long key": b'{"input": "a", "' + b"k" * 1_000_000 + b'": 1}',
    "many keys": b'{"input": "a", ' + b", ".join(b'"k%d": 1' % i for i in range(100_000)) + b"}",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bodies_that_break_parsers_are_refused(api: Any, name: str):
    answer = TestClient(api.app).post(
        "/v1/audio/speech", content=BAD_JSON[name], headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert 0 < len(answer.json()["error"]["message"]) < 1_000
