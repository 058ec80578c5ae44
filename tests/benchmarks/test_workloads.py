"""The benchmarks' requests and their answers: what a seed makes, and which audio passes."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_speech_server import speech_answer, speech_events
from golden_data import GOLDEN

from sglang_moss.benchmarks.loads.prompt_rows import prompt_rows
from sglang_moss.benchmarks.loads.speech_reading import SpeechReader, clipped_share, silent
from sglang_moss.benchmarks.loads.synthetic_voice import synthetic_speech
from sglang_moss.benchmarks.loads.workloads import FAMILY_WORKLOADS, WORKLOADS, RequestMaker, Workload, script
from sglang_moss.request.profile import PROFILES
from sglang_moss.request.prompt import choose_mode
from sglang_moss.request.script import check_script, read_script
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.text import check_text

TINY = Workload("dialogue", seconds=0.4, n_speakers=2, reference_seconds=0.5)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_scripts_can_be_spoken_by_all_speakers_in_the_time(workload: Workload):
    text = script(workload, seed=5)
    check_text(text, frozenset())
    assert {f"[S{k + 1}]" in text for k in range(5)} == ({True, False})
    assert all(f"[S{k + 1}]" in text for k in range(workload.n_speakers))
    n_words = len([word for word in text.split() if not word.startswith("[S")])
    assert n_words == round(workload.seconds * 2.5)


@pytest.mark.parametrize("workload", FAMILY_WORKLOADS.values(), ids=FAMILY_WORKLOADS)
def test_other_models_are_sent_what_they_take(workload: Workload):
    maker = RequestMaker(replace(workload, reference_seconds=0.5), seed=3)
    bodies = [json.loads(maker.body(i)) for i in range(3)]
    profile = PROFILES[workload.profile]
    prompts = set()
    for body in bodies:
        options = RequestOptions.parse(body["sampling_params"], profile)
        fields = read_script(body["text"], profile, options.fields)
        check_script(fields, frozenset(), profile=profile)
        mode = choose_mode(options.mode, len(body.get("audio_data", ())), profile)
        assert (mode.clones, mode.continues) == (workload.n_speakers > 0, False)
        prompts.add(str(fields))
    assert len(prompts) == len(bodies)


def test_the_same_seed_makes_the_same_requests_and_every_request_differs():
    maker = RequestMaker(TINY, seed=3, case="a")
    bodies = [json.loads(maker.body(i)) for i in range(4)] + [json.loads(maker.warm_up_body(0, 0.1))]
    assert [json.loads(RequestMaker(TINY, seed=3, case="a").body(i)) for i in range(4)] == bodies[:4]
    assert len({body["text"] for body in bodies}) == 5
    assert len({body["sampling_params"]["sampling_seed"] for body in bodies}) == 5
    assert len({tuple(body["audio_data"]) for body in bodies}) == 1
    assert len(set(bodies[0]["audio_data"])) == 2
    assert replace(maker, case="b").body(0) != maker.body(0)
    uncached = replace(maker, uncached_references=True)
    assert len({clip for i in range(3) for clip in json.loads(uncached.body(i))["audio_data"]}) == 6
    assert len({json.loads(replace(maker, same_script=True).body(i))["text"].split("]")[-1] for i in range(3)}) == 1


def test_lengths_are_forced_unless_the_model_shall_end_by_itself():
    params = json.loads(RequestMaker(TINY).body(0))["sampling_params"]
    assert (params["max_new_tokens"], params["ignore_eos"]) == (5, True)
    assert params.keys() == {"max_new_tokens", "ignore_eos", "sampling_seed", "custom_params"}
    free = json.loads(RequestMaker(TINY, free_length=True, stream=True).body(0))
    assert "ignore_eos" not in free["sampling_params"]
    assert free["stream"] is True


def test_lengths_spread_evenly_around_the_workloads_own():
    even = RequestMaker(replace(TINY, seconds=30.0))
    assert {even.frames(i) for i in range(9)} == {375}
    spread = replace(even, workload=replace(even.workload, spread=0.5))
    frames = [spread.frames(i) for i in range(400)]
    assert min(frames) in range(188, 195)
    assert max(frames) in range(555, 563)
    assert abs(sum(frames) / 400 - 375) < 15
    assert frames == [replace(spread, case="another").frames(i) for i in range(400)]
    assert json.loads(spread.body(7))["sampling_params"]["max_new_tokens"] == frames[7]


def test_made_up_voices_sound_from_start_to_end_and_differ():
    clip = (synthetic_speech(240_000, seed=1) * 32_767).astype(np.int16)
    assert not silent(clip, 24_000)
    assert clipped_share(clip) == 0
    assert np.abs(clip).max() > 16_000
    assert not np.array_equal(synthetic_speech(999, 1), synthetic_speech(999, 2))


def test_prompt_rows_are_what_two_requests_with_the_same_voices_share():
    rows = prompt_rows(RequestMaker(TINY), GOLDEN / "fused")
    longer = prompt_rows(RequestMaker(replace(TINY, reference_seconds=0.9)), GOLDEN / "fused")
    assert 0 < rows.n_shared < rows.n_rows
    # 5 frames more of each of two references, in the user's turn and, as prompt audio, in the assistant's.
    assert longer.n_shared - rows.n_shared >= 10
    assert longer.n_rows - rows.n_rows >= 20


def body(n_frames: int = 5, **meta: Any) -> list[bytes]:
    return [json.dumps(speech_answer(n_frames, **meta)).encode()]


def silent_body() -> list[bytes]:
    answer = speech_answer(5)
    wav = base64.b64decode(answer["text"])
    return [json.dumps(answer | {"text": base64.b64encode(wav[:44] + bytes(len(wav) - 44)).decode()}).encode()]


def test_an_answer_of_sound_of_the_right_length_passes():
    whole = SpeechReader(stream=False, expected_frames=[5])(
        0, body(prompt_tokens=9, cached_tokens=4, reference_cached=True)
    )
    assert (whole.problem, whole.frames, whole.part_seconds) == (None, 5, (0.4,))
    assert (whole.prompt_tokens, whole.cached_tokens, whole.reference_cached) == (9, 4, True)
    events = [event.removeprefix(b"data: ") for event in speech_events([2, 3])[:-1]]
    chunks = SpeechReader(stream=True, expected_frames=None)(0, events)
    assert (chunks.problem, chunks.frames, chunks.part_seconds) == (None, 5, (0.16, 0.24))


@pytest.mark.parametrize(
    ("parts", "expected_frames", "problem"),
    [
        (body(4), 5, "wrong length"),
        (body(5, audio_frames=6), None, "wrong length"),
        (body(0), None, "wrong length"),
        (silent_body(), 5, "silent"),
    ],
)
def test_wrong_answers_do_not_pass(parts: list[bytes], expected_frames: int | None, problem: str):
    assert SpeechReader(False, expected_frames and [expected_frames])(0, parts).problem == problem


def test_silence_may_be_allowed_and_is_still_counted():
    found = SpeechReader(stream=False, expected_frames=[5], allow_silence=True)(0, silent_body())
    assert (found.problem, found.is_silent) == (None, True)


@pytest.mark.parametrize("n_silent", [48_000, 70_000])
@pytest.mark.parametrize("at", [0, 50_000, 240_000])
def test_two_silent_seconds_anywhere_are_found(n_silent: int, at: int):
    sound = np.full(240_000, 1_000, np.int16)
    around = np.concatenate([sound[:at], np.zeros(n_silent + 48_000, np.int16), sound[at:]])
    assert silent(around, 24_000)
    assert not silent(np.concatenate([sound[:at], np.zeros(20_000, np.int16), sound[at:]]), 24_000)
