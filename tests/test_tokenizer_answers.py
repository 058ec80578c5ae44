"""Answers in the HTTP process: whole and streamed ones put together, and what is aborted when somebody leaves."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from speech_requests import random_frames, special_tokens_of, speech_request

from sglang_moss.audio.wav import wav_bytes
from sglang_moss.decode.wire import ChunkDelivery, WholeDelivery, marks_line
from sglang_moss.errors import BadText, MossError
from sglang_moss.output_sender import META
from sglang_moss.request.first_sound import MARKS, FirstSoundMarks
from sglang_moss.request.ranks import Ranks
from sglang_moss.request.turns import Turn
from sglang_moss.tokenizer_answers import speech_answers

pytestmark = pytest.mark.wide

RATE, FRAME = 100, 5
TOKENS = special_tokens_of(3, 9)
STOP = {"type": "stop"}
CODES = random_frames(40, TOKENS)
PCM = np.random.default_rng(0).integers(-(2**15), 2**15, 40 * FRAME).astype(np.int16)


class Manager:
    """In the place of SGLang's `TokenizerManager`: knows who runs, and notes who is aborted."""

    def __init__(self, *running: str, unsent: str | None = None) -> None:
        self.rid_to_state = {rid: self._state(1.0) for rid in running}
        if unsent is not None:
            self.rid_to_state[unsent] = self._state(0.0)
        self.aborted: list[str] = []
        self.mm_processor = SimpleNamespace(ranks=Ranks(1), timed_turns={}, first_sounds=FirstSoundMarks())

    @staticmethod
    def _state(dispatched_at: float) -> Any:
        return SimpleNamespace(text_chunks=["kept"], time_stats=SimpleNamespace(api_server_dispatch_time=dispatched_at))

    def _dispatch_to_scheduler(self, message: Any) -> None:
        self.aborted.append(message.rid)


def answer(rid: str, text: str = "", end: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    return {"text": text, "meta_info": {"id": rid, "finish_reason": end, **meta}}


def request_of(*rids: str, stream: bool = False) -> Any:
    return SimpleNamespace(rid=rids[0] if len(rids) == 1 else list(rids), stream=stream)


def all_of(manager: Manager, request: Any, *answers: Any, error: BaseException | None = None) -> list[Any]:
    async def generate(*_: Any) -> AsyncGenerator[Any, None]:
        for one in answers:
            yield one
        if error is not None:
            raise error

    async def collect() -> list[Any]:
        return [one async for one in speech_answers(generate, manager, request)]

    return asyncio.run(collect())


def whole_texts(n_pieces: int = 3) -> tuple[list[str], dict[str, Any]]:
    delivery = WholeDelivery(speech_request(TOKENS, custom_params={"return_codes": True}).request, RATE)
    texts = [delivery.add(pcm, codes) for pcm, codes in pieces(n_pieces)]
    text, meta = delivery.end()
    return [*texts, text], meta


def pieces(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (codes_pcm[0].reshape(-1), codes_pcm[1])
        for codes_pcm in zip(np.array_split(PCM.reshape(-1, FRAME), n), np.array_split(CODES, n), strict=True)
    ]


def stream_lines(chunk_frames: int = 8) -> list[str]:
    custom = {"return_codes": True, "chunk_frames": chunk_frames}
    delivery = ChunkDelivery(speech_request(TOKENS, custom_params=custom).request, RATE, FRAME)
    text = delivery.add(PCM, CODES) + delivery.end()[0]
    return text.splitlines(keepends=True)


def heard(events: list[dict[str, Any]]) -> np.ndarray:
    """Samples of all events, each a WAV of its own."""
    samples = [np.frombuffer(base64.b64decode(e["text"])[44:], np.int16) for e in events if e["text"]]
    for event, pcm in zip((e for e in events if e["text"]), samples, strict=True):
        assert base64.b64decode(event["text"]) == wav_bytes(pcm, RATE)
    return np.concatenate(samples)


def test_a_whole_answer_is_the_wav_of_all_its_pieces():
    texts, meta = whole_texts()
    [found] = all_of(Manager(), request_of("r" * 16), answer("r" * 16, "".join(texts), STOP, **{META: [meta]}))
    assert base64.b64decode(found["text"]) == wav_bytes(PCM, RATE)
    ours = found["meta_info"]
    assert (ours["audio_frames"], ours["audio_seconds"]) == (40, 40 * FRAME / RATE)
    assert ours["audio_codes"] == CODES.tolist()
    assert META not in ours
    assert "wav_head" not in ours


def test_codes_are_not_kept_unless_asked_for():
    delivery = WholeDelivery(speech_request(TOKENS).request, RATE)
    delivery.add(PCM, CODES)
    assert "audio_codes" not in delivery.end()[1]
    chunks = ChunkDelivery(speech_request(TOKENS).request, RATE, FRAME)
    assert "audio_codes" not in chunks.add(PCM, CODES)


def test_a_batch_is_a_list_of_whole_answers():
    texts, meta = whole_texts()
    rids = ["a" * 16, "b" * 16]
    [found] = all_of(Manager(), request_of(*rids), [answer(r, "".join(texts), STOP, **{META: [meta]}) for r in rids])
    assert [base64.b64decode(one["text"]) == wav_bytes(PCM, RATE) for one in found] == [True, True]


@pytest.mark.parametrize("joined", [1, 2, 3, 100])
def test_one_event_a_chunk_however_sglang_joins_them(joined):
    lines = stream_lines()
    texts = ["".join(lines[i : i + joined]) for i in range(0, len(lines), joined)]
    answers = [answer("r" * 16, t, STOP if t is texts[-1] else None, prompt_tokens=7) for t in texts]
    events = all_of(Manager(), request_of("r" * 16, stream=True), *answers)
    np.testing.assert_array_equal(heard(events), PCM)
    assert len(events) == len(lines)
    assert [e["meta_info"]["finish_reason"] for e in events] == [None] * (len(lines) - 1) + [STOP]
    assert [code for e in events for code in e["meta_info"]["audio_codes"]] == CODES.tolist()
    assert {e["meta_info"]["prompt_tokens"] for e in events} == {7}
    assert events[-1]["meta_info"]["audio_frames"] == 40


@pytest.mark.parametrize("joined", [1, 3, 100])
def test_the_marks_of_a_first_sound_are_told_with_it_alone(joined):
    rid, lines = "r" * 16, stream_lines()
    of_http = {name: float(i) for i, name in enumerate(MARKS[:5])}
    of_scheduler = {name: float(i) for i, name in enumerate(MARKS) if 5 <= i < len(MARKS) - 1}
    lines[0] = marks_line(of_scheduler) + lines[0]
    texts = ["".join(lines[i : i + joined]) for i in range(0, len(lines), joined)]
    manager = Manager()
    manager.mm_processor.first_sounds.keep(rid, of_http)
    manager.mm_processor.first_sounds.keep("other", of_http)
    events = all_of(manager, request_of(rid, stream=True), *(answer(rid, t) for t in texts), answer(rid, end=STOP))
    np.testing.assert_array_equal(heard(events), PCM)
    told = [event["meta_info"].get("timings") for event in events]
    assert told[1:] == [None] * len(lines)
    assert list(told[0]) == list(MARKS)
    assert told[0].pop("answered") > 0
    assert told[0] == of_http | of_scheduler
    manager.mm_processor.first_sounds.forget("other")
    assert not manager.mm_processor.first_sounds


def test_marks_are_forgotten_where_nothing_was_heard():
    rid, manager = "r" * 16, Manager()
    manager.mm_processor.first_sounds.keep(rid, {"received": 0.0})
    all_of(manager, request_of(rid, stream=True), answer(rid, end={"type": "abort", "message": "no"}))
    assert not manager.mm_processor.first_sounds


def test_an_end_without_audio_has_the_totals():
    lines = stream_lines()
    events = all_of(
        Manager(), request_of("r" * 16, stream=True), answer("r" * 16, "".join(lines)), answer("r" * 16, "", STOP)
    )
    assert events[-1]["text"] == ""
    ours = events[-1]["meta_info"]
    assert (ours["audio_frames"], ours["audio_seconds"], ours["chunk_start_seconds"]) == (40, 2.0, 2.0)
    assert ours["finish_reason"] == STOP
    assert "audio_codes" not in ours


def test_text_that_sglang_repeats_is_not_heard_twice():
    lines, abort = stream_lines(), {"type": "abort", "message": "m"}
    answers = [answer("r" * 16, lines[0]), answer("r" * 16, lines[1] + lines[0] + lines[1], abort)]
    events = all_of(Manager(), request_of("r" * 16, stream=True), *answers)
    np.testing.assert_array_equal(heard(events), PCM[: 8 * FRAME])
    assert events[-1]["meta_info"]["finish_reason"] == abort


def test_a_stream_leaves_no_text_behind_in_the_http_process():
    manager = Manager("r" * 16)
    all_of(manager, request_of("r" * 16, stream=True), answer("r" * 16, stream_lines()[0]))
    assert manager.rid_to_state["r" * 16].text_chunks == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_stays_a_value_error(stream):
    with pytest.raises(ValueError, match="no words"):
        all_of(Manager(), request_of("r" * 16, stream=stream), error=BadText("no words"))


def test_our_failure_is_an_http_error_or_the_streams_last_event():
    error = MossError("the codec is tired")
    with pytest.raises(HTTPException, match="the codec is tired"):
        all_of(Manager(), request_of("r" * 16), error=error)
    rids = ["a" * 16, "b" * 16]
    events = all_of(Manager(), request_of(*rids, stream=True), answer(rids[0], "", STOP), error=error)
    assert [e["meta_info"]["id"] for e in events] == rids
    reason = events[-1]["meta_info"]["finish_reason"]
    assert (reason["type"], reason["message"], reason["status_code"]) == ("abort", "the codec is tired", 500)


@pytest.mark.parametrize("stream", [False, True])
def test_a_batch_that_fails_ends_those_that_still_run(stream):
    rids = ["a" * 16, "b" * 16, "c" * 16]
    manager = Manager()  # SGLang forgets them all before it raises
    with pytest.raises(ValueError, match="bad"):
        all_of(manager, request_of(*rids, stream=stream), answer(rids[1], "", STOP), error=ValueError("bad"))
    assert manager.aborted == [rids[0], rids[2]]


@pytest.mark.parametrize("leave", ["cancel", "close"])
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_is_aborted_at_once(leave, stream):
    runs, ended, unsent = "r" * 16, "e" * 16, "u" * 16
    manager = Manager(runs, unsent=unsent)

    async def generate(*_: Any) -> AsyncGenerator[Any, None]:
        yield answer(ended, "", STOP)
        await asyncio.sleep(3600)

    async def session() -> None:
        answers = speech_answers(generate, manager, request_of(runs, ended, unsent, stream=stream))
        await anext(answers)
        if leave == "close":
            await answers.aclose()
            return
        waiting = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(session())
    assert manager.aborted == [runs]
    assert unsent not in manager.rid_to_state, "the scheduler will never speak of it"
    assert runs in manager.rid_to_state, "the scheduler's last word finds it"


def test_who_has_everything_aborts_nothing():
    manager = Manager()
    texts, meta = whole_texts()
    all_of(manager, request_of("r" * 16), answer("r" * 16, "".join(texts), STOP, **{META: [meta]}))
    assert manager.aborted == []


def test_answers_carry_the_clients_id_and_aborts_sglangs():
    request = request_of("f" * 32)
    request.client_rid = "mine"
    texts, meta = whole_texts()
    [found] = all_of(Manager(), request, answer("f" * 32, "".join(texts), STOP, **{META: [meta]}))
    assert found["meta_info"]["id"] == "mine"
    manager = Manager("f" * 32)
    streamed = request_of("f" * 32, stream=True)
    streamed.client_rid = "mine"
    *_, last = all_of(manager, streamed, answer("f" * 32, stream_lines()[0]), error=MossError("broken"))
    assert (last["meta_info"]["id"], last["meta_info"]["finish_reason"]["type"]) == ("mine", "abort")
    assert manager.aborted == ["f" * 32]


@pytest.mark.parametrize(("status", "shown"), [(None, 503), (500, 500), (503, 503)])
def test_a_whole_answer_that_was_aborted_is_a_failure(status, shown):
    end = {"type": "abort", "message": "the request was aborted", "status_code": status}
    with pytest.raises(HTTPException, match="the request was aborted") as failed:
        all_of(Manager(), request_of("r" * 16), answer("r" * 16, "", end))
    assert failed.value.status_code == shown


def timed_manager(*rids: str) -> Manager:
    manager = Manager()
    manager.mm_processor.timed_turns = {rid: [Turn(1, "Hello there."), Turn(2, "Hi.")] for rid in rids}
    return manager


def test_times_of_turns_are_the_same_streamed_and_whole():
    texts, meta = whole_texts()
    manager = timed_manager("r")
    [whole] = all_of(manager, request_of("r"), answer("r", "".join(texts), STOP, **{META: [meta]}))
    turns = whole["meta_info"]["turns"]
    assert [(turn["speaker"], turn["text"]) for turn in turns] == [("S1", "Hello there."), ("S2", "Hi.")]
    assert 0 <= turns[0]["start"] < turns[0]["end"] <= turns[1]["start"] < turns[1]["end"] <= 40 * FRAME / RATE
    lines = stream_lines()
    answers = [answer("r", lines[0]), answer("r", "".join(lines[1:])), answer("r", "", STOP)]
    events = all_of(timed_manager("r"), request_of("r", stream=True), *answers)
    assert events[-1]["meta_info"]["turns"] == turns
    assert not any("turns" in event["meta_info"] for event in events[:-1])
    assert not manager.mm_processor.timed_turns


@pytest.mark.parametrize("stream", [False, True])
def test_times_that_were_not_asked_for_are_not_told(stream):
    texts, meta = whole_texts()
    answers = (
        [answer("r", stream_lines()[0], STOP)] if stream else [answer("r", "".join(texts), STOP, **{META: [meta]})]
    )
    [*_, last] = all_of(timed_manager("other"), request_of("r", stream=stream), *answers)
    assert "turns" not in last["meta_info"]


def test_turns_of_a_request_that_fails_are_forgotten():
    manager = timed_manager("r", "other")
    with pytest.raises(ValueError, match="no"):
        all_of(manager, request_of("r"), error=ValueError("no"))
    assert manager.mm_processor.timed_turns.keys() == {"other"}
