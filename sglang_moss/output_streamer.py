"""From accepted rows to the HTTP process, in the scheduler process.

Parts of a request's audio leave as the codec's thread hands them over, on SGLang's own output message, straight to the
HTTP process: there is nothing for a detokenizer to do. A request that has ended is held until its last part has come;
its KV cache and its slot are free by then, so holding it blocks nobody.
"""

import dataclasses
import logging
import signal
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
from sglang.srt.managers.io_struct import AbortReq, BatchStrOutput, BatchTokenIDOutput, wrap_as_pickle
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req
from sglang.srt.managers.scheduler_components.output_sender import SenderWrapper
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer
from sglang.srt.runtime_context import get_serving
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_moss.capture_stream import check_capture_stream
from sglang_moss.decode.service import CodecService
from sglang_moss.hooking import check_fields
from sglang_moss.hooks import PRIVATE_FIELDS
from sglang_moss.multimodal_item import progress_of
from sglang_moss.request.speech import SpeechProgress
from sglang_moss.step.eager import NOT_FINITE

logger = logging.getLogger(__name__)

_NOT_FINITE = "the model's output is not finite, so there is nothing to decode; the server's log says more"
META = "speech"  # key of `customized_info` under which our part of `meta_info` travels
_SHARED_FIELDS = tuple(set(BatchStrOutput.__struct_fields__) & set(BatchTokenIDOutput.__struct_fields__))


class SpeechSender(SenderWrapper):
    """Turns messages for SGLang's detokenizer into the detokenizer's answers; drops those that only it would read."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self._texts: dict[str, str] = {}  # by request id, what its next message carries
        self._meta: dict[str, dict[str, Any]] = {}

    def attach(self, rid: str, text: str, meta: dict[str, Any] | None) -> None:
        """Let the next message of a request carry more text, and `meta`."""
        self._texts[rid] = self._texts.get(rid, "") + text
        if meta:
            self._meta[rid] = meta

    def detach(self, rid: str) -> None:
        """Forget what has not left."""
        self._texts.pop(rid, None)
        self._meta.pop(rid, None)

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        if not isinstance(output, BatchTokenIDOutput):
            return
        fields = {name: getattr(output, name) for name in _SHARED_FIELDS}
        rids = output.rids or ()
        fields["output_strs"] = [self._texts.pop(rid, "") for rid in rids]
        metas = [[meta] if (meta := self._meta.pop(rid, None)) else [] for rid in rids]
        if any(metas):
            fields["customized_info"] = wrap_as_pickle({META: metas})
        super().send_output(BatchStrOutput(**fields), recv_obj)


class AbortWatcher(SenderWrapper):
    """The scheduler's sender to the HTTP process; sees requests that are aborted while they wait for a slot."""

    def __init__(self, socket: Any, on_abort: Callable[[str], None]) -> None:
        super().__init__(socket)
        self._on_abort = on_abort

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        if isinstance(output, AbortReq) and output.rid is not None:
            self._on_abort(output.rid)
        super().send_output(output, recv_obj)


class SpeechStreamer(SchedulerOutputStreamer):
    """SGLang's output streamer, driven by audio where a request has speech: no message a token, and none too early."""

    __slots__ = ("_codec", "_held", "_opened", "_sender")

    def __init__(self, sender: SpeechSender, codec: CodecService, **stock: Any) -> None:
        """
        Args:
            stock: the arguments of SGLang's own streamer, whose sender gives way to ours.
        """
        super().__init__(**{**stock, "send_to_detokenizer": sender})
        self._sender = sender
        self._codec = codec
        self._opened: dict[str, Req] = {}  # by request id, requests that the codec knows
        self._held: set[str] = set()  # ids of those that have ended and wait for their last part

    def row_accepted(self, req: Req, row: np.ndarray) -> None:
        """A row [1 + n_vq] became part of a request for good: called exactly once a row, also after a retraction."""
        progress = progress_of(req)
        if progress is None or isinstance(req.finished_reason, FINISH_ABORT):
            return  # SGLang accepts one more row after an abort, when the slot is free and the codec has forgotten it
        if row[1] == NOT_FINITE:
            logger.error(
                "request %s: the output of the language model is not finite; look at weights and dtype", req.rid
            )
            req.to_finish = FINISH_ABORT(_NOT_FINITE, HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        progress.rows.append(row)
        if progress.on_slot_freed is None:
            self._open(req, progress)
        self._codec.row_accepted(progress)

    def slot_freed(self, req: Req) -> None:
        """A request leaves its slot: an aborted one will never ask for its audio."""
        if isinstance(req.finished_reason or req.to_finish, FINISH_ABORT):
            self.forget(req.rid)

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
            self._sender.attach(rid, part.text, part.meta)
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
            else:  # only a failure comes before the end: SGLang ends the request with its next step
                req.to_finish = failure
        self._send_more(list(going_on.values()))
        if ended:
            super()._stream_output_generation(ended, return_logprob=False)

    def abort(self, rid: str | None, abort_all: bool) -> None:
        """End held requests as SGLang ends running ones: by id or by its beginning."""
        for held_rid in [r for r in self._held if abort_all or r.startswith(rid or "")]:
            req = self._opened[held_rid]
            self.forget(held_rid)
            req.finished_reason = FINISH_ABORT("the request was aborted")
            super()._stream_output_generation([req], return_logprob=False)

    def forget(self, rid: str) -> None:
        """Drop what the codec does for a request; unknown ids are no error."""
        self._held.discard(rid)
        if self._opened.pop(rid, None) is not None:
            self._codec.drop(rid)
            self._sender.detach(rid)

    def _open(self, req: Req, progress: SpeechProgress) -> None:
        self._opened[req.rid] = req
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


def streamer_class(scheduler: Any) -> Callable[..., SpeechStreamer]:
    """What `scheduler`, which has just loaded our model, makes its output streamer of; starts the codec's thread.

    Raises:
        RuntimeError: SGLang has not what we rely on; the server does not start.
    """
    sample = Req("", "", array("q", [0]), SamplingParams())
    check_fields(PRIVATE_FIELDS, {"Scheduler": scheduler, "Req": sample})
    check_capture_stream()
    args = scheduler.server_args
    runner = scheduler.tp_worker.model_runner
    model = runner.model
    metrics_model = get_serving().served_model_name if args.enable_metrics else None
    codec = CodecService(
        model.codec,
        model.reference_encoder,
        model.decoder_state,
        model.tokens,
        args.codec_address,
        args.codec_voices,
        metrics_model,
    )
    sender = SpeechSender(scheduler.ipc_channels.send_to_tokenizer.socket)

    def build(**stock: Any) -> SpeechStreamer:
        streamer = SpeechStreamer(sender, codec, **stock)
        runner.sampler.on_row = streamer.row_accepted
        scheduler.ipc_channels = dataclasses.replace(
            scheduler.ipc_channels, send_to_tokenizer=AbortWatcher(sender.socket, streamer.forget)
        )
        return streamer

    scheduler.idle_sleeper.poller.register(codec.woken)
    # Ctrl-C in a terminal reaches every process; the HTTP process finishes what runs, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return build
