"""When turns are heard in samples that the page sends: as answers tell it, within bounds."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fake_endpoints import serving, three_events

from sglang_moss.request.turns import turns_of
from sglang_moss.turn_times.timing import turn_times

pytestmark = pytest.mark.wide

RATE = 24_000
SCRIPT = "[S1] It is about to rain. [S2] So they say. [S1] We shall see."
T = np.arange(RATE) / RATE
VOWEL = np.rint(3_000 * sum(np.sin(2 * np.pi * k * 150 * T) / k for k in range(1, 9))).astype("<i2")
PCM = np.concatenate([np.r_[VOWEL, np.zeros(RATE // 2, "<i2")] for _ in range(3)]).astype("<i2")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(three_events, tmp_path_factory.mktemp("served")) as (opened, _):
        yield opened


def ask(client: httpx.Client, pcm: bytes = PCM.tobytes(), **fields: Any) -> httpx.Response:
    data = {"script": SCRIPT, "rate": str(RATE), **fields}
    return client.post("/page/turns", data=data, files={"audio": pcm})


@pytest.mark.parametrize("is_cut", [False, True])
def test_they_are_told_by_the_rule_of_answers(client: httpx.Client, is_cut: bool):
    pcm = PCM[: len(PCM) // 3] if is_cut else PCM
    answer = ask(client, pcm.tobytes(), is_cut=str(is_cut).lower())
    assert answer.status_code == 200
    turns = answer.json()["turns"]
    times = turn_times(pcm, RATE, turns_of(SCRIPT), is_cut=is_cut).round(2).tolist()
    assert [[turn["start"], turn["end"]] for turn in turns] == times
    assert (turns[0]["speaker"], turns[0]["text"]) == ("S1", "It is about to rain.")
    assert len(turns) == (1 if is_cut else 3)


@pytest.mark.parametrize(
    ("pcm", "fields", "said"),
    [
        (PCM.tobytes(), {"script": "[S1] ..."}, "script: expected words"),
        (PCM.tobytes(), {"script": "[S7] a"}, "got [S7]"),
        (PCM.tobytes(), {"script": f"[S{'1' * 5_000}] a"}, "one with 5000 digits"),
        (PCM.tobytes(), {"script": "[S1] a" * 2_001}, "got 2001"),
        (PCM.tobytes(), {"rate": "96000"}, "rate: of the samples"),
        (PCM.tobytes(), {"rate": "many"}, "rate: "),
        (b"\0\0\0", {}, "got 3 bytes"),
        (b"", {}, "got 0 bytes"),
    ],
)
def test_what_cannot_be_told_is_refused(client: httpx.Client, pcm: bytes, fields: dict[str, str], said: str):
    answer = ask(client, pcm, **fields)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
