"""Two ranks behind one port: equal codes, a voice at home on one rank, and an end as soon as one of them dies."""

import concurrent.futures
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from generate_bodies import clip, fixed
from golden_data import GOLDEN, golden_arrays
from server_processes import named, schedulers, status_of, wait_until_at_rest
from waiting import wait_until_idle
from warm_start import warm_server

from sglang_moss.benchmarks.reference.golden_cases import GoldenCases
from sglang_moss.clients.local_server import LocalServer

pytestmark = [pytest.mark.server, pytest.mark.slow]

CASES = GoldenCases(GOLDEN)
CODES = golden_arrays("e2e/e2e")
ONE_CORE_EACH = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "OMP_NUM_THREADS": "1", "WARM_SPARES": "2"}
ARGUMENTS = ["--dp-size", "2", "--max-running-requests", "8", "--enable-metrics"]
N_AT_ONCE = 16
VOICES = [clip("spk1_24k.wav"), clip("spk2_24k.wav"), clip("spk3_16k.wav"), clip("spk4_44k1_stereo.wav")]


@dataclass(frozen=True)
class TwoRanks:
    server: LocalServer
    client: httpx.Client

    def meta(self, **body: Any) -> dict[str, Any]:
        answer = self.client.post("/generate", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["meta_info"]

    def speak(self, seed: int, voice: str | None = None, frames: int = 12) -> dict[str, Any]:
        audio = {"audio_data": [voice]} if voice else {}
        return self.meta(text="[S1] Good morning.", sampling_params=fixed(frames, sampling_seed=seed), **audio)

    def metric(self, name: str) -> list[str]:
        return [line for line in self.client.get("/metrics").text.splitlines() if line.startswith(name)]


@pytest.fixture(scope="module")
def two_ranks(fused_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRanks]:
    log = tmp_path_factory.mktemp("two_ranks") / "log"
    server = warm_server(fused_path, log=log, env=ONE_CORE_EACH, extra_args=ARGUMENTS)
    with server, httpx.Client(base_url=server.url, timeout=180) as client:
        yield TwoRanks(server, client)


@pytest.fixture(scope="module")
def at_once(two_ranks: TwoRanks) -> list[dict[str, Any]]:
    with concurrent.futures.ThreadPoolExecutor(N_AT_ONCE) as pool:
        jobs = [pool.submit(two_ranks.speak, i, VOICES[i % 4] if i % 2 else None) for i in range(N_AT_ONCE)]
        return [job.result() for job in jobs]


@pytest.mark.parametrize("key", CASES.comparable_keys()[::4])
def test_codes_equal_the_reference(two_ranks: TwoRanks, key: str):
    body = CASES.served_request(key)
    body["sampling_params"]["custom_params"] = {"return_codes": True}
    np.testing.assert_array_equal(two_ranks.meta(**body)["audio_codes"], CODES[f"{key}.generated_codes"])


def test_requests_without_a_voice_go_where_less_is_done(two_ranks: TwoRanks):
    endless = {"text": "[S1] Not to the end.", "sampling_params": fixed(20_000), "stream": True}
    ranks, running_lines = [], []  # as soon as nobody has its lines, a stream's connection is closed
    with contextlib.ExitStack() as running:
        for _ in range(4):
            answer = running.enter_context(two_ranks.client.stream("POST", "/generate", json=endless))
            running_lines.append(answer.iter_lines())
            first = next(running_lines[-1])
            ranks.append(json.loads(first.removeprefix("data: "))["meta_info"]["dp_rank"])
        del running_lines
    assert sorted(ranks[:2]) == sorted(ranks[2:]) == [0, 1]
    wait_until_idle(two_ranks.client)


def test_a_request_gives_what_it_gives_alone(two_ranks: TwoRanks, at_once: list[dict[str, Any]]):
    for seed in (0, 1, 3):
        alone = two_ranks.speak(seed, VOICES[seed % 4] if seed % 2 else None)
        assert alone["audio_codes"] == at_once[seed]["audio_codes"]


def test_a_voice_stays_with_its_rank_whose_cache_knows_it(two_ranks: TwoRanks):
    homes = []
    for voice in VOICES:
        metas = [two_ranks.speak(seed, voice) for seed in range(3)]
        assert len({meta["dp_rank"] for meta in metas}) == 1
        assert [meta["cached_tokens"] for meta in metas[1:]] == [metas[0]["prompt_tokens"] - 1] * 2
        homes.append(metas[0]["dp_rank"])
    assert set(homes) == {0, 1}, "four voices, two ranks"


def test_samples_of_one_request_are_spread(two_ranks: TwoRanks):
    body = {"text": "[S1] Hello.", "sampling_params": fixed(9, n=4)}
    answer = two_ranks.client.post("/generate", json=body).json()
    assert sorted(one["meta_info"]["dp_rank"] for one in answer) == [0, 0, 1, 1]


def test_a_client_does_not_choose_the_rank(two_ranks: TwoRanks):
    answer = two_ranks.client.post("/generate", json={"text": "[S1] Hello.", "routed_dp_rank": 1})
    assert answer.status_code == 400
    assert "routed_dp_rank" in answer.text


@pytest.mark.usefixtures("at_once")
def test_every_rank_has_its_codec_and_its_metrics(two_ranks: TwoRanks):
    assert two_ranks.client.get("/health").status_code == 200
    lines = two_ranks.metric("moss_ttsd:codec_slots{")
    assert sorted("".join(c for c in line.split("dp_rank=")[1] if c in "01")[:1] for line in lines) == ["0", "1"]


def test_nobody_works_without_work(two_ranks: TwoRanks):
    idle = [*schedulers(two_ranks.server), *named(two_ranks.server, "sglang::data_parallel_controller")]
    assert len(idle) == 3
    wait_until_at_rest(idle)


def test_a_rank_that_is_killed_ends_the_server_and_cuts_what_runs(two_ranks: TwoRanks):
    """The last test of this server."""
    settings = fixed(20_000, sampling_seed=1)
    body = {"text": "[S1] Not to the end.", "sampling_params": settings, "stream": True}
    with two_ranks.client.stream("POST", "/generate", json=body) as answer:
        lines = answer.iter_lines()
        assert '"finish_reason":null' in next(lines).replace(" ", "")
        schedulers(two_ranks.server)[1].kill()
        with pytest.raises(httpx.TransportError):
            assert all('"finish_reason":null' in line.replace(" ", "") for line in lines if line)
    assert status_of(two_ranks.server) != 0
