"""A request gives the same codes whatever path it takes through the engine: exactly, on the CPU in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fresh_process import in_fresh_process
from golden_data import GOLDEN
from warm_engine import asked

from sglang_moss.benchmarks.reference.golden_cases import GoldenCases
from sglang_moss.benchmarks.reference.rows_engine import RowsAnswer, RowsEngine

pytestmark = pytest.mark.server

CASES = GoldenCases(GOLDEN)
N_SEEDS = 3


def sampled_requests() -> list[dict[str, Any]]:
    """The golden `/generate` bodies, sampled: each prompt under several seeds, with settings that differ."""
    requests = []
    for i, key in enumerate(k for k in CASES.served_keys() if "over_10s" not in k):
        for seed in range(N_SEEDS):
            settings = {
                "max_new_tokens": 30 + 5 * (i % 4),
                "sampling_seed": 100 * i + seed,
                "temperature": 0.9 + 0.2 * seed,
                "repetition_penalty": 1.0 + 0.1 * (i % 3),
                "ignore_eos": seed == 0,
            }
            requests.append({**CASES.served_request(key), "sampling_params": settings})
    return requests


def codes_of(answers: list[RowsAnswer]) -> list[list]:
    """Codes, or the error, in a form that compares."""
    return [answer.error or answer.codes.tolist() for answer in answers]


REQUESTS = sampled_requests()


@pytest.fixture(scope="module")
def alone(fused_path: Path) -> list[list]:
    """Every request by itself, one after the other."""
    one_by_one = [[request] for request in REQUESTS]
    rounds = asked(fused_path, *one_by_one, max_running_requests=1, disable_radix_cache=True)
    found = [answer for [answer] in rounds]
    spoken = [answer for answer in found if answer.error is None]
    assert len(spoken) > 0.8 * len(found)
    for request, answer in zip(REQUESTS, found, strict=True):
        if request["sampling_params"]["ignore_eos"]:
            assert len(answer.codes) == request["sampling_params"]["max_new_tokens"]
    assert len({np.array(answer.codes).tobytes() for answer in spoken}) == len(spoken), "seeds must matter"
    return codes_of(found)


def test_all_at_once_and_then_again_from_the_cache_equals_alone(fused_path: Path, alone: list[list]):
    first, again, backwards = asked(fused_path, REQUESTS, REQUESTS, REQUESTS[::-1])
    assert codes_of(first) == alone
    assert codes_of(again) == alone
    assert all(
        a.meta["cached_tokens"] > 0 and a.meta["reference_cached"]
        for a, r in zip(again, REQUESTS, strict=True)
        if a.error is None and r.get("audio_data")
    )
    assert codes_of(backwards) == alone[::-1], "slots are reused by others"


@pytest.mark.parametrize("chunk", [16, 37])
def test_chunked_prefill_equals_alone(fused_path: Path, alone: list[list], chunk: int):
    [found] = asked(fused_path, REQUESTS, chunked_prefill_size=chunk)
    assert codes_of(found) == alone


@pytest.mark.parametrize("page_size", [16, 64])
def test_any_page_size_equals_alone_cold_and_cached(fused_path: Path, alone: list[list], page_size: int):
    """64 is the default of newer cards."""
    cold, cached = asked(fused_path, REQUESTS, REQUESTS, page_size=page_size, chunked_prefill_size=64)
    assert codes_of(cold) == alone
    assert codes_of(cached) == alone
    assert sum(answer.meta.get("cached_tokens", 0) for answer in cached) > 0


def test_without_the_overlap_schedule_equals_alone(fused_path: Path, alone: list[list]):
    [found] = asked(fused_path, REQUESTS, disable_overlap_schedule=True)
    assert codes_of(found) == alone


def test_retracted_requests_equal_alone(fused_path: Path, alone: list[list], monkeypatch: pytest.MonkeyPatch):
    """Retraction puts requests that share a prompt, but not their codes, back into the prefill queue together."""
    monkeypatch.setenv("SGLANG_TEST_RETRACT", "1")
    monkeypatch.setenv("SGLANG_TEST_RETRACT_INTERVAL", "2")
    [found] = asked(fused_path, REQUESTS, chunked_prefill_size=64)
    assert codes_of(found) == alone
    assert sum(answer.meta.get("num_retractions", 0) for answer in found) > 10


def test_the_context_is_used_to_its_last_row(fused_path: Path):
    """A request of fixed length may fill the context; one frame more is refused, and the message names the limit."""
    in_fresh_process(fill_the_context, str(fused_path))


def fill_the_context(path: str) -> None:
    with RowsEngine(path, context_length=256) as engine:

        def ask(n_frames: int) -> RowsAnswer:
            settings = {"max_new_tokens": n_frames, "ignore_eos": True, "sampling_seed": 1}
            return engine.ask([{"text": "[S1] Hello.", "sampling_params": settings}])[0]

        refused = ask(1000).error
        assert refused is not None
        limit = int(refused.removesuffix(" at most").rsplit(" ", 1)[1])
        assert 100 < limit < 256
        assert len(ask(limit).codes) == limit
        assert ask(limit + 1).error is not None
