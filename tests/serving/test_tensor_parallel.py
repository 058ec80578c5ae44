"""Two ranks over gloo speak as one: equal codes, the same ends on both, and a codec that fails on the first alone."""

import concurrent.futures
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from failing_codec import make_failing, own_code
from generate_bodies import clip, fixed
from golden_data import GOLDEN, golden_arrays
from server_processes import schedulers, status_of, wait_until_at_rest
from waiting import n_running, wait_until_idle, wait_until_running
from warm_engine import asked
from warm_start import warm_server

from sglang_moss.benchmarks.reference.golden_cases import GoldenCases
from sglang_moss.clients.local_server import LocalServer

pytestmark = [pytest.mark.server, pytest.mark.slow]

ONE_CORE_EACH = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "OMP_NUM_THREADS": "1", "WARM_SPARES": "2"}
RETRACTION = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "7"}
ARGUMENTS = ["--tp-size", "2", "--chunked-prefill-size", "64", "--check-ranks", "--enable-metrics"]
ARGUMENTS += ["--codec-encoder-precision", "fp16x3"]  # the same codes; one rank alone has them in ieee
CASES = GoldenCases(GOLDEN)
GOLDEN_CODES = {key: golden_arrays("e2e/e2e")[f"{key}.generated_codes"].tolist() for key in CASES.comparable_keys()}
FAILING, FRAMES_BEFORE = 0, 24  # the request whose codec fails, and when


def requests() -> list[dict[str, Any]]:
    """One speaker, two and none."""
    voices = [None, [clip("spk1_24k.wav")], [clip("spk1_24k.wav"), clip("spk2_24k.wav")]]
    found = []
    for i in range(9):
        settings = fixed(40 + 5 * i, sampling_seed=i, repetition_penalty=1 + 0.05 * i)
        voice = {"audio_data": voices[i % 3]} if voices[i % 3] else {}
        found.append({"text": "[S1] Hello there. [S2] How are you?", "sampling_params": settings, **voice})
    return found


REQUESTS = requests()


@dataclass(frozen=True)
class TwoRanks:
    server: LocalServer
    client: httpx.Client
    alone: list[list]  # what one rank answers to each request: codes

    def ask(self, request: dict[str, Any], **changes: Any) -> httpx.Response:
        return self.client.post("/generate", json=request | changes)

    def codes(self, request: dict[str, Any]) -> list:
        answer = self.ask(request)
        assert answer.status_code == 200, answer.text
        return answer.json()["meta_info"]["audio_codes"]

    def metric(self, name: str) -> list[str]:
        return [line for line in self.client.get("/metrics").text.splitlines() if line.startswith(name)]


@pytest.fixture(scope="module")
def two_ranks(fused_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRanks]:
    folder = tmp_path_factory.mktemp("two_ranks")
    [answers] = asked(fused_path, REQUESTS)
    assert all(answer.error is None for answer in answers)
    alone = [answer.codes.tolist() for answer in answers]
    others = [*alone[:FAILING], *alone[FAILING + 1 :], *GOLDEN_CODES.values()]
    path = make_failing(folder, own_code(answers[FAILING].codes, FRAMES_BEFORE, others))
    server = warm_server(path, log=folder / "log", env=ONE_CORE_EACH | RETRACTION, extra_args=ARGUMENTS)
    with server, httpx.Client(base_url=server.url, timeout=180) as client:
        yield TwoRanks(server, client, alone)


SPOKEN = [i for i in range(len(REQUESTS)) if i != FAILING]


@pytest.mark.parametrize("key", GOLDEN_CODES)
def test_codes_equal_the_reference(two_ranks: TwoRanks, key: str):
    body = CASES.served_request(key)
    body["sampling_params"]["custom_params"] = {"return_codes": True}
    assert two_ranks.codes(body) == GOLDEN_CODES[key]


def test_all_at_once_equals_one_rank_also_from_the_cache_and_after_retraction(two_ranks: TwoRanks):
    with concurrent.futures.ThreadPoolExecutor(len(SPOKEN)) as pool:
        for is_cached in (False, True):
            answers = list(pool.map(lambda i: two_ranks.ask(REQUESTS[i]).json(), SPOKEN))
            assert [a["meta_info"]["audio_codes"] for a in answers] == [two_ranks.alone[i] for i in SPOKEN]
            metas = [answer["meta_info"] for answer in answers]
            assert sum(meta["num_retractions"] for meta in metas) > 0
            assert not is_cached or all(meta["cached_tokens"] > 0 for meta in metas)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_audio_that_cannot_be_decoded_ends_its_request_alone_and_holds_up_no_rank(
    two_ranks: TwoRanks, is_streamed: bool
):
    # Long enough that it still runs when the codec gives up.
    long = {**REQUESTS[FAILING], "sampling_params": {**REQUESTS[FAILING]["sampling_params"], "max_new_tokens": 400}}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        beside = [pool.submit(two_ranks.codes, REQUESTS[i]) for i in SPOKEN[:3]]
        failed = two_ranks.ask(long, stream=is_streamed)
        assert [one.result() for one in beside] == [two_ranks.alone[i] for i in SPOKEN[:3]]
    if is_streamed:
        *_, last, _done = [line for line in failed.text.split("\n\n") if line]
        assert '"status_code":500' in last.replace(" ", "").replace("\n", "")
        assert "decoding the audio failed" in last
    else:
        assert failed.status_code == 500
        assert "decoding the audio failed" in failed.text
    wait_until_idle(two_ranks.client)
    assert two_ranks.codes(REQUESTS[1]) == two_ranks.alone[1]


def test_what_a_client_leaves_ends_on_both_ranks(two_ranks: TwoRanks):
    settings = fixed(20_000, sampling_seed=5)
    body = {"text": "[S1] This will not be heard.", "sampling_params": settings, "stream": True}
    with two_ranks.client.stream("POST", "/generate", json=body) as answer:
        lines = answer.iter_lines()  # as soon as nobody has it, the connection is closed
        next(lines)
        wait_until_running(two_ranks.client)
        assert n_running(two_ranks.client) == 1
        del lines
    wait_until_idle(two_ranks.client)
    assert two_ranks.codes(REQUESTS[2]) == two_ranks.alone[2]


def test_no_row_was_drawn_apart(two_ranks: TwoRanks):
    [of_rank_1] = two_ranks.metric("moss_ttsd:rows_apart")
    assert 'tp_rank="1"' in of_rank_1
    assert float(of_rank_1.split()[-1]) == 0
    assert len(two_ranks.metric("moss_ttsd:codec_slots{")) == 1, "the codec is the first rank's"


def test_ranks_without_work_sleep(two_ranks: TwoRanks):
    ranks = schedulers(two_ranks.server)
    assert len(ranks) == 2
    wait_until_at_rest(ranks)


def test_a_rank_that_is_killed_ends_the_server_with_a_status(two_ranks: TwoRanks):
    """The last test of this server."""
    schedulers(two_ranks.server)[1].kill()
    assert status_of(two_ranks.server) != 0
