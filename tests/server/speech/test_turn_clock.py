"""Times of turns on the speech API: of parts, put together, in the last event."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoints import serving
from fake_manager import SAMPLE_RATE, STOP, event

pytestmark = pytest.mark.wide

MAX_OFF_S = 0.04  # 30 ms as of one part, and where two of them fade
VOICE_S = 1.5


def tone(seconds: float, hz: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.rint(6_000 * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 9))).astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def spoken(request: Any) -> list[dict[str, Any]]:
    """A vowel for each of the last turns that are new in this session, of 1.5 s, and 0.5 s of silence."""
    n_turns = request.text.split("${normalize_text}")[-1].count("[S")
    n_carried = 0 if request.audio_data is None else len(request.audio_data)
    pcm = [
        piece for k in range(max(1, n_turns - n_carried)) for piece in (tone(VOICE_S, 110 + 90 * (k % 2)), silence(0.5))
    ]
    whole = np.concatenate(pcm)
    return [event(whole[:40_000]), event(whole[40_000:], STOP)]


def ask(tmp_path: Path, script: Any = spoken, **fields: Any) -> tuple[int, Any]:
    body = {"stream_format": "sse", "response_format": "pcm", "timestamps": True, **fields}
    with serving(script, tmp_path) as (client, _):
        answer = client.post("/v1/audio/speech", json={k: v for k, v in body.items() if v is not None})
    if answer.status_code != 200:
        return answer.status_code, answer.json()
    lines = [line for line in answer.text.split("\n\n") if line.startswith("data: ")]
    return 200, json.loads(lines[-1].removeprefix("data: "))


@pytest.mark.parametrize("speed", [None, 2.0])
def test_the_last_event_tells_when_each_turn_is_heard(tmp_path: Path, speed: float | None):
    script = "[S1] Good morning everyone. [S2] It is about to rain. [S1] Yes, it really is."
    _, done = ask(tmp_path, input=script, speed=speed)
    assert done["type"] == "speech.audio.done"
    assert [(turn["speaker"], turn["text"]) for turn in done["turns"]] == [
        ("S1", "Good morning everyone."),
        ("S2", "It is about to rain."),
        ("S1", "Yes, it really is."),
    ]
    for k, turn in enumerate(done["turns"]):
        assert turn["start"] == pytest.approx(2.0 * k / (speed or 1), abs=MAX_OFF_S)
        assert turn["end"] == pytest.approx((2.0 * k + VOICE_S) / (speed or 1), abs=MAX_OFF_S)


def test_parts_follow_each_other_and_a_turn_that_was_cut_is_one(tmp_path: Path):
    long = " ".join(["One more sentence about the weather."] * 4)
    last = "It is about to rain, and nobody took an umbrella."
    script = f"[S1] {long} [S2] {last}"

    def session(_request: Any) -> list[dict[str, Any]]:
        return [event(np.concatenate([tone(VOICE_S, 110), silence(0.5)]), STOP)]

    _, done = ask(tmp_path, session, input=script, split_seconds=5)
    assert [(turn["speaker"], turn["text"]) for turn in done["turns"]] == [("S1", long), ("S2", last)]
    first, second = done["turns"]
    assert first["start"] == pytest.approx(0.0, abs=MAX_OFF_S)
    assert second["start"] > first["end"] > 2.0  # of its last part
    n_before = round(second["start"] / 1.99)  # parts of 2 s that overlap by 10 ms
    assert second["start"] == pytest.approx(1.99 * n_before, abs=MAX_OFF_S)
    assert first["end"] == pytest.approx(1.99 * (n_before - 1) + VOICE_S, abs=MAX_OFF_S)


def test_turns_are_not_told_unless_they_are_asked_for(tmp_path: Path):
    _, done = ask(tmp_path, input="Hello.", timestamps=None)
    assert "turns" not in done


@pytest.mark.parametrize("stream_format", [None, "audio"])
def test_without_events_there_is_no_place_for_them(tmp_path: Path, stream_format: str | None):
    status, answer = ask(tmp_path, input="Hello.", stream_format=stream_format)
    assert (status, answer["error"]["param"]) == (400, "timestamps")
