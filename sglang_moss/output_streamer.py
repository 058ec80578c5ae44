"""From accepted rows to the HTTP process, in the scheduler process.

Parts of a request's audio leave as the codec's thread hands them over, on SGLang's own output message, straight to the
HTTP process: there is nothing for a detokenizer to do. A request that has ended is held until its last part has come;
its KV cache and its slot are free by then, so holding it blocks nobody.

With tensor parallelism every rank keeps the rows, and the first alone has a codec, held requests and an HTTP process.
So nothing that a codec does may end a request by itself: what must end reaches all ranks as an abort, with what came.
"""

import dataclasses
import logging
import signal
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
from sglang.srt.managers.io_struct import AbortReq
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer
from sglang.srt.runtime_context import get_parallel, get_serving
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_moss.capture_stream import check_capture_stream
from sglang_moss.decode.service import CodecService
from sglang_moss.decode.stream import SpeechPart
from sglang_moss.decode.wire import marks_line
from sglang_moss.hooking import check_fields
from sglang_moss.hooks import PRIVATE_FIELDS
from sglang_moss.multimodal_item import progress_of
from sglang_moss.output_sender import AbortWatcher, SpeechSender
from sglang_moss.parallel import is_first_rank, rows_apart
from sglang_moss.request.speech import SpeechProgress
from sglang_moss.running_batch import Turns
from sglang_moss.step.eager import NOT_FINITE

logger = logging.getLogger(__name__)

_NOT_FINITE = "the model's output is not finite, so there is nothing to decode; the server's log says more"


class SpeechStreamer(SchedulerOutputStreamer):
    """SGLang's output streamer, driven by audio where a request has speech: no message a token, and none too early."""

    __slots__ = ("_aborts", "_codec", "_failures", "_held", "_opened", "_sender", "turns")

    def __init__(self, sender: SpeechSender, codec: CodecService, turns: Turns | None = None, **stock: Any) -> None:
        """
        Args:
            turns: who may sit a decoding step out; None: nobody does.
            stock: the arguments of SGLang's own streamer, whose sender gives way to ours.
        """
        super().__init__(**{**stock, "send_to_detokenizer": sender})
        self._sender = sender
        self._codec = codec
        self.turns = turns
        self._opened: dict[str, Req] = {}  # by request id, requests that the codec knows
        self._held: set[str] = set()  # ids of those that have ended and wait for their last part
        self._failures: dict[str, FINISH_ABORT] = {}  # by request id, why the codec gave up one that still runs
        self._aborts: list[AbortReq] = []  # of these, for every rank

    def row_accepted(self, req: Req, row: np.ndarray) -> None:
        """A row [1 + n_vq] became part of a request for good: called exactly once a row, also after a retraction."""
        progress = _accept(req, row)
        if progress is None:
            return
        if progress.on_slot_freed is None:
            self._open(req, progress)
        self._codec.row_accepted(progress)

    def slot_freed(self, req: Req) -> None:
        """A request leaves its slot: an aborted one will never ask for its audio."""
        if isinstance(req.finished_reason or req.to_finish, FINISH_ABORT):
            self._drop(req.rid)

    def tick(self) -> None:
        """Send what the codec has handed over."""
        parts = self._codec.parts()
        if not parts:
            return
        going_on: dict[str, Req] = {}
        ended: list[Req] = []
        for rid, part in parts:
            req = self._opened.get(rid)
            if req is None or progress_of(req) is not part.progress:
                continue  # aborted meanwhile; its id may belong to another request by now
            self._sender.attach(rid, _marked(part), part.meta)
            if not part.is_last:
                going_on[rid] = req
                continue
            del self._opened[rid]
            failure = None if part.error is None else FINISH_ABORT(part.error, part.status)
            if rid in self._held:
                self._held.discard(rid)
                going_on.pop(rid, None)
                req.finished_reason = failure or req.finished_reason
                ended.append(req)
            elif failure is not None:  # nothing else comes before the end
                self._failures[rid] = failure
                self._aborts.append(AbortReq(rid=rid, abort_message=failure.message, finished_reason=failure.to_json()))
        self._send_more(list(going_on.values()))
        if ended:
            super()._stream_output_generation(ended, return_logprob=False)

    def aborts(self) -> list[AbortReq]:
        """What SGLang shall end on every rank, with the next requests that it hands out."""
        aborts, self._aborts = self._aborts, []
        return aborts

    def abort(self, rid: str | None, abort_all: bool) -> None:
        """End held requests as SGLang ends running ones: by id or by its beginning."""
        for held_rid in [r for r in self._held if abort_all or r.startswith(rid or "")]:
            req = self._opened[held_rid]
            self.forget(held_rid)
            req.finished_reason = FINISH_ABORT("the request was aborted")
            super()._stream_output_generation([req], return_logprob=False)

    def forget(self, rid: str) -> None:
        """A request has ended that will not pass here; unknown ids are no error."""
        self._failures.pop(rid, None)
        self._drop(rid)

    def _drop(self, rid: str) -> None:
        """Drop what the codec does for a request; unknown ids are no error."""
        self._held.discard(rid)
        if self._opened.pop(rid, None) is not None:
            self._codec.drop(rid)
            self._sender.detach(rid)

    def _open(self, req: Req, progress: SpeechProgress) -> None:
        self._opened[req.rid] = req
        progress.began = time.monotonic()
        if progress.marks is not None:
            times = req.time_stats
            progress.marks |= {
                # A request that is retracted enters the queue again, but is not read for the first time again.
                "scheduler": min(times.wait_queue_entry_time, times.forward_entry_time),
                "prefill": times.forward_entry_time,
                "first_row": progress.began,
            }
        self._codec.open(req.rid, progress, is_live=bool(req.stream))
        progress.on_slot_freed = self.slot_freed

    def _stream_output_generation(self, reqs: list[Req], return_logprob: bool, *args: Any, **kwargs: Any) -> None:
        """SGLang's hook for every step's output: hold finished speech, say nothing of unfinished one."""
        passed = []
        for req in reqs:
            if progress_of(req) is None:
                passed.append(req)
            elif req.finished_reason is None or req.finished_output:
                continue
            elif (failure := self._failures.pop(req.rid, None)) is not None:
                req.finished_reason = failure  # SGLang's abort says less, or the request has come to its own end
                passed.append(req)
            elif isinstance(req.finished_reason, FINISH_ABORT) or req.rid not in self._opened:
                passed.append(req)
            elif req.rid not in self._held:
                self._held.add(req.rid)
                self._codec.finish(req.rid)
        if passed:
            super()._stream_output_generation(passed, return_logprob, *args, **kwargs)

    def _send_more(self, reqs: Sequence[Req]) -> None:
        """Send a message about requests whose audio goes on, whatever has become of their rows."""
        if reqs:
            with _as_running_streams(reqs):
                super()._stream_output_generation(list(reqs), return_logprob=False)


@contextmanager
def _as_running_streams(reqs: Sequence[Req]) -> Iterator[None]:
    """Let SGLang take these requests for streams that go on, of which it sends every message."""
    before = [(req.finished_reason, req.stream, req.sampling_params.stream_interval) for req in reqs]
    try:
        for req in reqs:
            req.finished_reason, req.stream, req.sampling_params.stream_interval = None, True, 1
        yield
    finally:
        for req, (finished_reason, stream, interval) in zip(reqs, before, strict=True):
            req.finished_reason, req.stream, req.sampling_params.stream_interval = finished_reason, stream, interval


class FollowingStreamer(SchedulerOutputStreamer):
    """On ranks after the first: rows are kept, as a retracted request is prefilled with them, and nothing leaves."""

    __slots__ = ()

    turns = None  # ranks take the same decisions, and need is known on the first one alone

    def row_accepted(self, req: Req, row: np.ndarray) -> None:
        """As `SpeechStreamer.row_accepted`: what a row ends, it ends on all ranks."""
        _accept(req, row)

    def tick(self) -> None:
        """No codec hands anything over."""

    def abort(self, rid: str | None, abort_all: bool) -> None:
        """No request is held."""

    def stream_output(self, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


def _accept(req: Req, row: np.ndarray) -> SpeechProgress | None:
    """Keep an accepted row [1 + n_vq] with its request; None where it became no part of any speech."""
    progress = progress_of(req)
    if progress is None or isinstance(req.finished_reason, FINISH_ABORT):
        return None  # SGLang accepts one more row after an abort, when the slot is free and the codec has forgotten it
    if row[1] == NOT_FINITE:
        logger.error("request %s: the output of the language model is not finite; look at weights and dtype", req.rid)
        req.to_finish = FINISH_ABORT(_NOT_FINITE, HTTPStatus.INTERNAL_SERVER_ERROR)
        return None
    if progress.marks is not None and progress.heard_until is None:
        progress.accepted.append(time.monotonic())
    progress.rows.append(row)
    return progress


def _marked(part: SpeechPart) -> str:
    """The text of a part; in front of the first one the marks of its way, where somebody asked for them."""
    marks = part.progress.marks
    if not part.text or marks is None or "left" in marks:
        return part.text
    marks["left"] = time.monotonic()
    return marks_line(marks) + part.text


def streamer_class(scheduler: Any) -> Callable[..., SpeechStreamer | FollowingStreamer]:
    """What `scheduler`, which has just loaded our model, makes its output streamer of; starts the codec's thread.

    Raises:
        RuntimeError: SGLang has not what we rely on; the server does not start.
    """
    check_capture_stream()
    # Ctrl-C in a terminal reaches every process; the HTTP process finishes what runs, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _first_streamer(scheduler) if is_first_rank() else _following_streamer(scheduler)


def _following_streamer(scheduler: Any) -> Callable[..., FollowingStreamer]:
    runner = scheduler.tp_worker.model_runner

    def build(**stock: Any) -> FollowingStreamer:
        streamer = FollowingStreamer(**stock)
        runner.sampler.on_row = streamer.row_accepted
        runner.sampler.apart = rows_apart(runner.model.shared_rows, scheduler.server_args.enable_metrics)
        return streamer

    return build


def _first_streamer(scheduler: Any) -> Callable[..., SpeechStreamer]:
    sample = Req("", "", array("q", [0]), SamplingParams())
    check_fields(PRIVATE_FIELDS, {"Scheduler": scheduler, "Req": sample, "ScheduleBatch": ScheduleBatch(reqs=[])})
    args = scheduler.server_args
    runner = scheduler.tp_worker.model_runner
    model = runner.model
    rank = get_parallel().dp_rank or 0
    labels = {"model_name": get_serving().served_model_name} if args.enable_metrics else None
    if labels and args.dp_size > 1:
        labels["dp_rank"] = str(rank)
    codec = CodecService(
        model.codec,
        model.reference_encoder,
        model.decoder_state,
        model.tokens,
        args.codec_addresses[rank],
        args.codec_voices,
        labels,
    )
    sender = SpeechSender(scheduler.ipc_channels.send_to_tokenizer.socket)
    turns = None
    if args.yield_above is not None:
        config = model.codec.config
        turns = Turns(args.yield_above, config.frame_samples / config.sampling_rate, labels)

    def build(**stock: Any) -> SpeechStreamer:
        streamer = SpeechStreamer(sender, codec, turns, **stock)
        runner.sampler.on_row = streamer.row_accepted
        scheduler.ipc_channels = dataclasses.replace(
            scheduler.ipc_channels, send_to_tokenizer=AbortWatcher(sender.socket, streamer.forget)
        )
        return streamer

    scheduler.idle_sleeper.poller.register(codec.woken)
    return build
