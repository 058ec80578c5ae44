"""The simulated fleet: what one card was measured to do comes out again, and cards share what they are given."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_moss.benchmarks.fleet import CardModel, checks, fleets, poisson, policies, simulate
from sglang_moss.benchmarks.runs.record import read_lines

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "release_h100.jsonl"


@pytest.fixture(scope="module")
def model() -> CardModel:
    return CardModel.of(read_lines(RESULTS))


def test_every_measured_load_of_one_card_is_met_within_a_tenth(model: CardModel):
    found = list(checks(model, read_lines(RESULTS)))
    assert {line["concurrency"] for line in found} > {16, 64}, "loads that the model was not fitted to"
    assert all(line["simulated_over_measured"] == pytest.approx(1, abs=0.1) for line in found)


def test_two_cards_are_held_against_lines_of_two_ranks(model: CardModel):
    line = {"benchmark": "serving", "workload": "dialogue", "concurrency": 128, "stream": False, "dp_size": 2}
    [found] = checks(model, [line | {"steady_audio_s_per_s": 800.0}])
    assert found["simulated"] == pytest.approx(2 * 64 * 0.08 / model.step(64))


def test_a_request_alone_takes_its_frames_times_a_step(model: CardModel):
    choose, ended = policies(1)["least busy"]
    [first, *_] = simulate(model, 1, poisson(model, rate=0.001, seconds=5000, n_voices=1, seed=0), choose, ended)
    n_frames = round(model.audio_seconds / 0.08)
    assert first.done - first.came == pytest.approx(n_frames * model.step(1))
    assert first.first_audio - first.came == pytest.approx(model.first_audio(1))


@pytest.mark.parametrize("name", policies(3))
def test_every_request_ends_once_whoever_speaks_it(model: CardModel, name: str):
    choose, ended = policies(3)[name]
    arrivals = list(poisson(model, rate=40, seconds=4, n_voices=5, seed=1))
    done = simulate(model, 3, iter(arrivals), choose, ended)
    assert sorted(request.number for request in done) == list(range(len(arrivals)))
    assert all(request.done > request.first_audio >= request.came for request in done)


def test_a_popular_voice_alone_makes_its_listeners_wait(model: CardModel):
    args: Any = SimpleNamespace(cards=[4], loads=[0.8], seconds=40, warm_up=10, voices=50, seed=0)
    found = {line["policy"]: line["ttfa_ms_p95"] for line in fleets(model, args)}
    assert found["voice within its share"] < 1.5 * found["least busy"]
    assert found["voice alone"] > 2 * found["voice within its share"]


def test_too_few_lines_are_said():
    with pytest.raises(ValueError, match="two loads or more"):
        CardModel.of([])
