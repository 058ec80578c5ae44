"""Requests made from a server's own OpenAPI schema, and beside it."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

OURS = (
    ("POST", "/v1/audio/speech"),
    ("GET", "/v1/audio/voices"),
    ("POST", "/v1/audio/voices"),
    ("DELETE", "/v1/audio/voices/{name}"),
    ("GET", "/v1/models"),
)
SGLANGS = (("POST", "/generate"),)  # the rest is closed: `closed_doors`
# Not that whatever fits the schema is accepted: it cannot say that a script is needed, or a name not taken.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
_SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)  # schemas of other people
_TIMEOUT_S = 60.0
_FRAMES = 2  # of whatever is spoken


def send_bad_fields(url: str, api_key: str | None, seed: int, n_bodies: int) -> dict[str, Any]:
    """Send bodies to all of these endpoints.

    Returns:
        Counts: `requests`; `bad_inputs` that were refused; `wrong`: an answer of ours that is not what the schema says;
        `failed`: an answer with a status of 500 or above.
    """
    schema: Any = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=_headers(api_key))
    counts = Counter[str]()
    for method, path in OURS + SGLANGS:
        if path not in schema or method not in schema[path]:
            continue
        for mode in schemathesis.GenerationMode if method == "POST" else (schemathesis.GenerationMode.POSITIVE,):
            is_ours = (method, path) in OURS
            cases = schema[path][method].as_strategy(mode)
            outcomes = functools.partial(_outcome, is_ours=is_ours, api_key=api_key)
            _for_each(cases, seed, n_bodies, lambda case, outcomes=outcomes: counts.update(outcomes(case)))
    return {name: counts[name] for name in ("requests", "bad_inputs", "wrong", "failed")}


def _for_each(cases: Any, seed: int, n: int, use: Callable[[Any], None]) -> None:
    """Draw n cases and use each."""

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=n, deadline=None, database=None, suppress_health_check=_SLOW)
    @hypothesis.given(case=cases)
    def draw(case: Any) -> None:
        use(case)

    draw()


def _outcome(case: Any, is_ours: bool, api_key: str | None) -> list[str]:
    _shorten(case)
    answer = case.call(headers=_headers(api_key), timeout=_TIMEOUT_S)
    outcome = ["requests"]
    if 400 <= answer.status_code < 500:
        outcome.append("bad_inputs")
    if answer.status_code >= 500:
        outcome.append("failed")
    elif is_ours and not _conforms(case, answer):
        outcome.append("wrong")
    return outcome


def _shorten(case: Any) -> None:
    """What would be spoken is short."""
    if not isinstance(case.body, dict):
        return
    if case.path == "/generate" and isinstance(case.body.get("sampling_params"), dict | type(None)):
        case.body["sampling_params"] = {**(case.body.get("sampling_params") or {}), "max_new_tokens": _FRAMES}
    elif case.path == "/v1/audio/speech" and "max_seconds" not in case.body:
        case.body["max_seconds"] = 0.16


def _conforms(case: Any, answer: Any) -> bool:
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup:
        return False
    return True


def _headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
