"""From accepted rows to messages: what the scheduler process sends of a request, and when."""

import time
from array import array
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.managers.auxiliary_output import CommittedTokens
from sglang.srt.managers.io_struct import AbortReq, BatchStrOutput
from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISH_LENGTH, Req
from sglang.srt.runtime_context import SpawnRanks, create_context, use_context
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from speech_requests import special_tokens_of, speech_request

from sglang_moss.decode.stream import SpeechPart
from sglang_moss.decode.wire import chunks_of
from sglang_moss.output_sender import META, AbortWatcher, SpeechSender
from sglang_moss.output_streamer import FollowingStreamer, SpeechStreamer
from sglang_moss.request.speech import SpeechProgress
from sglang_moss.row_sampler import DrawnRows
from sglang_moss.step.eager import NOT_FINITE

pytestmark = pytest.mark.wide

TOKENS = special_tokens_of(3, 9)


class FakeSocket:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_pyobj(self, message: Any, **_: Any) -> None:
        self.sent.append(message)


class FakeCodec:
    """In the place of `CodecService`: notes what it is told, and hands over the parts that a test gives it."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.waiting: list[tuple[str, SpeechPart]] = []

    def open(self, rid: str, progress: SpeechProgress, is_live: bool) -> None:  # noqa: ARG002
        self.told.append(("open", rid, is_live))

    def finish(self, rid: str) -> None:
        self.told.append(("finish", rid))

    def drop(self, rid: str) -> None:
        self.told.append(("drop", rid))

    def row_accepted(self, progress: SpeechProgress) -> None:
        pass

    def parts(self) -> list[tuple[str, SpeechPart]]:
        parts, self.waiting = self.waiting, []
        return parts


class Scheduler:
    """What surrounds the streamer in the scheduler process."""

    def __init__(self) -> None:
        self.socket, self.codec = FakeSocket(), FakeCodec()
        codec: Any = self.codec
        self.streamer = SpeechStreamer(
            SpeechSender(self.socket),
            codec,
            send_to_detokenizer=None,
            tree_cache=None,
            server_args=None,
            is_generation=True,
            spec_algorithm=SpeculativeAlgorithm.NONE,
            disaggregation_mode=DisaggregationMode.NULL,
            enable_hicache_storage=lambda: False,
        )
        self.to_tokenizer = AbortWatcher(self.socket, self.streamer.forget)  # type: ignore[arg-type]

    def request(self, rid: str = "r" * 16, stream: bool = False, speaks: bool = True, timings: bool = False) -> Any:
        params = SamplingParams(max_new_tokens=100)
        params.normalize(None)
        req: Any = Req(rid, "", array("q", [1, 2, 3]), params, stream=stream)
        if speaks:
            req.speech = speech_request(TOKENS, custom_params={"timings": timings})
        return req

    def accept(self, *reqs: Any) -> None:
        """One step: a row for each request."""
        drawn = DrawnRows(torch.arange(len(reqs) * 4).view(-1, 4), self.streamer.row_accepted)
        for req in reqs:
            req.output_ids.append(7)
        batch = SimpleNamespace(reqs=reqs)
        drawn.copy_to_host(torch.clone).consume(batch, [CommittedTokens(len(r.output_ids) - 1, (7,)) for r in reqs])
        self.streamer.stream_output(list(reqs), False)

    def finish(self, req: Any) -> None:
        req.finished_reason = FINISH_LENGTH(length=len(req.output_ids))
        self.streamer.stream_output([req], False)

    def hand_over(self, req: Any, text: str = "", **fields: Any) -> None:
        self.codec.waiting.append((req.rid, SpeechPart(req.speech, text, **fields)))
        self.streamer.tick()

    def messages(self) -> list[tuple[list[str], list[str], list[Any]]]:
        """(ids, texts, finish reasons) of every message so far."""
        assert all(isinstance(m, BatchStrOutput) for m in self.socket.sent)
        return [(m.rids, m.output_strs, m.finished_reasons) for m in self.socket.sent]


@pytest.fixture(autouse=True, scope="module")
def settings_of_a_scheduler() -> Iterator[None]:
    args = ServerArgs(model_path="dummy", stream_interval=8)
    with use_context(create_context(args, role="scheduler", ranks=SpawnRanks(world_rank=0))):
        yield


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


def test_a_row_whose_token_was_not_committed_is_nobodys():
    accepted: list[tuple[Any, list[int]]] = []
    drawn = DrawnRows(torch.arange(12).view(3, 4), lambda req, row: accepted.append((req, row.tolist())))
    batch = SimpleNamespace(reqs=["retracted", "goes on", "in a middle chunk"])
    drawn.copy_to_host(torch.clone).consume(batch, [None, CommittedTokens(3, (7,)), None])
    assert accepted == [("goes on", [4, 5, 6, 7])]


def test_the_first_part_of_a_stream_brings_the_marks_of_its_way(scheduler):
    req = scheduler.request(stream=True, timings=True)
    req.time_stats.set_wait_queue_entry_time()
    req.time_stats.set_forward_entry_time()
    for _ in range(3):
        scheduler.accept(req)
    assert len(req.speech.accepted) == 3
    req.speech.marks |= {"decoded": time.monotonic()}  # as the codec's thread does
    req.speech.heard_until = 1.0
    scheduler.accept(req)
    assert len(req.speech.accepted) == 3
    scheduler.hand_over(req, "one ")
    scheduler.hand_over(req, "two ")
    [[marked], [text]] = [texts for _, texts, _ in scheduler.messages()]
    [(_, marks), (wav, _)] = chunks_of(marked.replace("one ", "one {}"))
    assert (wav, text) == ("one", "two ")
    assert list(marks.values()) == sorted(marks.values())
    assert list(marks) == ["scheduler", "prefill", "first_row", "decoded", "left"]


def test_nothing_is_noted_where_nobody_asked(scheduler):
    req = scheduler.request(stream=True)
    scheduler.accept(req)
    scheduler.hand_over(req, "one ")
    assert not req.speech.accepted
    assert scheduler.messages()[0][1] == ["one "]


def test_accepted_rows_are_kept_with_their_request_and_open_its_stream_once(scheduler):
    reqs = [scheduler.request("a" * 16, stream=True), scheduler.request("b" * 16), scheduler.request(speaks=False)]
    for _ in range(3):
        scheduler.accept(*reqs)
    np.testing.assert_array_equal(reqs[1].speech.rows[:], [[4, 5, 6, 7]] * 3)
    assert scheduler.codec.told == [("open", "a" * 16, True), ("open", "b" * 16, False)]


def test_no_message_a_token_whatever_streams(scheduler):
    req = scheduler.request(stream=True)
    for _ in range(120):
        scheduler.accept(req)
    assert scheduler.messages() == []


@pytest.mark.parametrize("stream", [False, True])
def test_audio_leaves_as_it_comes_and_the_end_with_the_last_of_it(scheduler, stream):
    req = scheduler.request(stream=stream)
    scheduler.accept(req)
    scheduler.hand_over(req, "one")
    scheduler.accept(req)
    scheduler.finish(req)
    scheduler.finish(req)  # the overlap schedule shows it once more
    assert scheduler.codec.told[1:] == [("finish", req.rid)]
    scheduler.hand_over(req, "two")  # held: more of its audio, not its end
    scheduler.hand_over(req, "three", is_last=True, meta={"audio_frames": 3})
    texts = [text for _, [text], _ in scheduler.messages()]
    ends = [end for *_, [end] in scheduler.messages()]
    assert texts == ["one", "two", "three"]
    assert [end and end["type"] for end in ends] == [None, None, "length"]
    assert [m.customized_info for m in scheduler.socket.sent] == [None, None, {META: [[{"audio_frames": 3}]]}]
    assert [list(m.output_ids[0]) for m in scheduler.socket.sent] == [[7], [7], []]
    assert req.stream is stream
    assert req.finished_output


def test_what_comes_together_leaves_in_one_message(scheduler):
    a, b = scheduler.request("a" * 16, stream=True), scheduler.request("b" * 16, stream=True)
    scheduler.accept(a, b)
    scheduler.codec.waiting += [(req.rid, SpeechPart(req.speech, text)) for req, text in ((a, "1"), (b, "2"), (a, "3"))]
    scheduler.streamer.tick()
    assert scheduler.messages() == [([a.rid, b.rid], ["13", "2"], [None, None])]


def test_a_failure_before_the_end_ends_the_request_on_every_rank_and_says_why(scheduler):
    req = scheduler.request(stream=True)
    scheduler.accept(req)
    scheduler.hand_over(req, "one")
    scheduler.hand_over(req, is_last=True, error="broken", status=500)
    assert req.to_finish is None, "the other ranks would not hear of it"
    [abort] = scheduler.streamer.aborts()
    assert scheduler.streamer.aborts() == []
    assert abort.rid == req.rid
    assert (abort.finished_reason["message"], abort.finished_reason["status_code"]) == ("broken", 500)
    scheduler.accept(req)  # a step that was on its way
    req.to_finish = FINISH_ABORT(abort.abort_message, 503)  # as SGLang does on every rank
    req.update_finish_state()  # SGLang's next step
    scheduler.streamer.slot_freed(req)
    scheduler.accept(req)
    _, _, [end] = scheduler.messages()[-1]
    assert (end["type"], end["message"], end["status_code"]) == ("abort", "broken", 500)
    assert len(req.speech.rows) == 2


def test_a_request_that_ends_by_itself_after_its_audio_failed_is_no_success(scheduler):
    req = scheduler.request()
    scheduler.accept(req)
    scheduler.hand_over(req, is_last=True, error="broken", status=500)
    scheduler.finish(req)  # before the abort has come round
    [(_, _, [end])] = scheduler.messages()
    assert (end["type"], end["message"]) == ("abort", "broken")


def test_a_failure_of_a_request_that_waits_for_a_slot_again_is_told_by_the_abort(scheduler):
    req = scheduler.request()
    scheduler.accept(req)
    scheduler.hand_over(req, is_last=True, error="broken", status=500)
    [abort] = scheduler.streamer.aborts()
    scheduler.to_tokenizer.send_output(AbortReq(rid=req.rid, finished_reason=abort.finished_reason), req)
    [echo] = scheduler.socket.sent
    assert echo.finished_reason["message"] == "broken"
    assert scheduler.streamer._failures == {}


def test_another_rank_keeps_the_same_rows_ends_the_same_requests_and_says_nothing(scheduler):
    sender: Any = scheduler.socket
    following = FollowingStreamer(
        send_to_detokenizer=sender,
        tree_cache=Any,
        server_args=Any,
        is_generation=True,
        spec_algorithm=SpeculativeAlgorithm.NONE,
        disaggregation_mode=DisaggregationMode.NULL,
        enable_hicache_storage=lambda: False,
    )
    first, second = scheduler.request("a" * 16), scheduler.request("a" * 16)
    for row in ([7, 1, 2, 3], [7, 4, 5, 6], [7, NOT_FINITE, 6, 7]):
        scheduler.streamer.row_accepted(first, np.array(row))
        following.row_accepted(second, np.array(row))
    np.testing.assert_array_equal(first.speech.rows[:], second.speech.rows[:])
    assert first.to_finish.to_json() == second.to_finish.to_json()
    second.finished_reason = second.to_finish
    following.stream_output([second], False)
    following.tick()
    following.abort(None, True)
    assert scheduler.socket.sent == []


def test_a_failure_after_the_end_is_the_answer(scheduler):
    req = scheduler.request()
    scheduler.accept(req)
    scheduler.finish(req)
    scheduler.hand_over(req, is_last=True, error="no audio", status=400)
    [(_, [text], [end])] = scheduler.messages()
    assert (text, end["type"], end["message"]) == ("", "abort", "no audio")


@pytest.mark.parametrize("abort_all", [False, True])
def test_an_aborted_held_request_ends_at_once(scheduler, abort_all):
    held, other = scheduler.request("held" * 4), scheduler.request("other" * 4)
    scheduler.accept(held, other)
    scheduler.finish(held)
    scheduler.streamer.abort(None if abort_all else "held", abort_all)
    assert scheduler.codec.told[-1] == ("drop", held.rid)
    [(rids, _, [end])] = scheduler.messages()
    assert (rids, end["type"]) == ([held.rid], "abort")
    scheduler.hand_over(held, "late", is_last=True)
    scheduler.hand_over(other, "text")
    assert scheduler.messages()[1:] == [([other.rid], ["text"], [None])]


def test_a_retracted_request_that_is_aborted_while_it_waits_is_forgotten(scheduler):
    """It never passes the streamer, and its slot is free already: SGLang's echo to the HTTP process is all there is."""
    req = scheduler.request(stream=True)
    scheduler.accept(req)
    scheduler.streamer.slot_freed(req)  # retraction
    assert scheduler.codec.told == [("open", req.rid, True)], "a retraction is no end"
    scheduler.to_tokenizer.send_output(AbortReq(rid=req.rid), req)
    assert scheduler.codec.told[-1] == ("drop", req.rid)
    scheduler.hand_over(req, "late")
    [echo] = scheduler.socket.sent
    assert isinstance(echo, AbortReq)
    again = scheduler.request(stream=True)  # another request under the same id
    scheduler.accept(again)
    scheduler.hand_over(req, "late")
    scheduler.hand_over(again, "mine")
    assert [m.output_strs for m in scheduler.socket.sent[1:]] == [["mine"]]


@pytest.mark.parametrize("while_waiting", [False, True])
def test_an_abort_while_it_runs_drops_its_audio(scheduler, while_waiting):
    req = scheduler.request(stream=True)
    scheduler.accept(req)
    if while_waiting:  # audio that has been decoded but not picked up
        scheduler.codec.waiting.append((req.rid, SpeechPart(req.speech, "late")))
    req.finished_reason = FINISH_ABORT("gone")
    scheduler.streamer.slot_freed(req)
    scheduler.streamer.stream_output([req], False)
    scheduler.streamer.tick()
    [(_, texts, [end])] = scheduler.messages()
    assert (texts, end["type"]) == ([""], "abort")
    assert scheduler.codec.told[-1] == ("drop", req.rid)


def test_a_request_without_speech_passes_as_it_is(scheduler):
    req = scheduler.request(speaks=False)
    scheduler.accept(req)
    scheduler.finish(req)
    [(rids, texts, [end])] = scheduler.messages()
    assert (rids, texts, end["type"]) == ([req.rid], [""], "length")
    assert scheduler.codec.told == []


def test_a_row_that_is_no_number_ends_its_request_alone_with_a_failure(scheduler):
    broken, sound = scheduler.request("a" * 16), scheduler.request("b" * 16)
    scheduler.accept(broken, sound)
    for req, code in ((broken, NOT_FINITE), (sound, 5)):
        scheduler.streamer.row_accepted(req, np.array([7, code, 6, 7]))
    assert broken.to_finish.status_code == 500
    assert "not finite" in broken.to_finish.message
    assert sound.to_finish is None
    assert (len(broken.speech.rows), len(sound.speech.rows)) == (1, 2)
    broken.update_finish_state()  # SGLang's next step
    scheduler.streamer.slot_freed(broken)
    scheduler.streamer.stream_output([broken], False)
    [(rids, _, [end])] = scheduler.messages()
    assert (rids, end["type"], end["status_code"]) == ([broken.rid], "abort", 500)
    assert scheduler.codec.told[-1] == ("drop", broken.rid)
