"""Lines say on how many cards they were measured, and are held against one card in the same case."""

from typing import Any

import httpx
import pytest

from sglang_moss.benchmarks.loads.ranks import n_cards, over_one_card, ranks_of
from sglang_moss.benchmarks.several_gpus import PHASES, PRECISIONS, shares

CASE = {"benchmark": "serving", "workload": "dialogue", "concurrency": 16, "stream": False, "dtype": "bfloat16"}


def line(rate: float, **fields: Any) -> dict[str, Any]:
    return {**CASE, "quantization": None, "audio_s_per_s": rate, **fields}


def asked(answer: httpx.Response) -> dict[str, Any]:
    with httpx.Client(base_url="http://a", transport=httpx.MockTransport(lambda _request: answer)) as client:
        return ranks_of(client, n_servers=3)


def test_a_server_tells_its_ranks_and_precision():
    told = {"tp_size": 2, "dp_size": 1, "quantization": None, "dtype": "bfloat16", "api_key": "secret"}
    found = asked(httpx.Response(200, json=told))
    assert found == {"tp_size": 2, "dp_size": 1, "quantization": None, "dtype": "bfloat16", "n_servers": 3}


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(200, text="no JSON")])
def test_a_server_that_tells_nothing_is_no_error(answer: httpx.Response):
    assert asked(answer) == {"n_servers": 3}


def test_cards_are_ranks_times_servers():
    assert [n_cards(found) for found in ({}, {"tp_size": 2}, {"dp_size": 2, "tp_size": 2, "n_servers": 3})] == [
        1,
        2,
        12,
    ]


def test_the_last_line_of_one_card_in_the_same_case_counts():
    others = [
        line(10.0),
        line(20.0),
        line(99.0, concurrency=64),
        line(99.0, quantization="fp8"),
        line(99.0, kv_cache_dtype="fp8_e4m3"),
        line(99.0, dp_size=2),
        {"benchmark": "parity"},
    ]
    assert over_one_card(line(38.0, tp_size=2), others) == {"over_one_card": pytest.approx(1.9)}


def test_copies_are_also_compared_with_one_card_that_has_as_many_requests_as_each():
    found = over_one_card(line(38.0, dp_size=2), [line(10.0, concurrency=8), line(20.0)])
    assert found == {"over_one_card": pytest.approx(1.9), "over_one_card_as_loaded": pytest.approx(3.8)}
    assert "over_one_card_as_loaded" not in over_one_card(line(38.0, dp_size=2, concurrency=3), [])


def test_without_such_a_line_there_is_no_ratio():
    assert over_one_card(line(38.0, tp_size=2), [line(10.0, stream=True)]) == {"over_one_card": None}


def test_every_setup_of_two_cards_has_its_precision_on_one():
    on_one = {setup.precision for name in ("one", "one-kv8") for setup in PHASES[name]}
    for setups in PHASES.values():
        for setup in setups:
            assert setup.precision in on_one
            found = line(1.0, tp_size=setup.tp_size, dp_size=setup.dp_size)
            assert setup.is_of(found | PRECISIONS[setup.precision])
            assert not setup.is_of(found | {"tp_size": 4})
            others = [told for name, told in PRECISIONS.items() if name != setup.precision]
            assert not any(setup.is_of(found | told) for told in others)


def test_the_broadcast_is_a_share_of_the_step_with_as_many_requests():
    lines = [
        {"benchmark": "tp_broadcast", "running": 16, "broadcast_us": 16.0},
        line(160.0, tp_size=2, steady_audio_s_per_s=160.0),
        line(80.0, tp_size=1, steady_audio_s_per_s=80.0),
    ]
    [found] = shares(lines)
    assert (found["running"], found["step_us"]) == (16, pytest.approx(8000))
    assert found["share"] == pytest.approx(0.002)
