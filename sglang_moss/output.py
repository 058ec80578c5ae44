"""From finished rows to the HTTP process, in the scheduler process.

A request that has ended is held until the codec has decoded its tail, then leaves on SGLang's own output message, sent
straight to the HTTP process: `text` is the base64 WAV, and there is nothing for a detokenizer to do. Its KV cache and
its slot are free by then, so holding it blocks nobody.
"""

from collections.abc import Callable
from typing import Any

from sglang.srt.managers.io_struct import AbortReq, BatchStrOutput, BatchTokenIDOutput
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req
from sglang.srt.managers.scheduler_components.output_sender import SenderWrapper
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer
from torch import Tensor

from sglang_moss.codec_service import CodecService
from sglang_moss.speech import progress_of
from sglang_moss.streams import Speech

META = "speech"  # key of `customized_info` under which our part of `meta_info` travels


class SpeechSender(SenderWrapper):
    """Turns messages for SGLang's detokenizer into the detokenizer's answers; drops those that only it would read."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self.wavs: dict[str, str] = {}  # by request id: the base64 WAV that leaves next

    def send_output(self, output: Any, recv_obj: Any = None) -> None:
        if not isinstance(output, BatchTokenIDOutput):
            return
        shared = set(BatchStrOutput.__struct_fields__) & set(BatchTokenIDOutput.__struct_fields__)
        fields = {name: getattr(output, name) for name in shared}
        fields["output_strs"] = [self.wavs.pop(rid, "") for rid in output.rids or ()]
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
    """SGLang's output streamer, which lets requests with speech go once their audio is whole."""

    __slots__ = ("_codec", "_early", "_held", "_opened", "_sample_rate", "_sender")

    @classmethod
    def over(cls, stock: SchedulerOutputStreamer, sender: SpeechSender, codec: CodecService, sample_rate: int) -> Any:
        """A streamer with the fields of `stock` that sends through `sender`."""
        fields = {name: getattr(stock, name) for name in SchedulerOutputStreamer.__dataclass_fields__}
        streamer = cls(**{**fields, "send_to_detokenizer": sender})
        streamer._sender = sender
        streamer._codec = codec
        streamer._sample_rate = sample_rate
        streamer._opened = {}  # by request id, the progress of requests that the codec knows
        streamer._held = {}  # by request id, requests that have ended and wait for their audio
        streamer._early = {}  # by request id, what the codec said of requests that still run: it failed
        return streamer

    def row_accepted(self, req: Req, row: Any) -> None:
        """A row [1 + n_vq] became part of a request for good: called exactly once a row, also after a retraction."""
        progress = progress_of(req)
        if progress is None or isinstance(req.finished_reason, FINISH_ABORT):
            return  # SGLang accepts one more row after an abort, when the slot is free and the codec has forgotten it
        progress.rows.append(row)
        if req.rid not in self._opened:
            self._opened[req.rid] = progress
            self._codec.open(req.rid, progress)
            progress.on_slot_freed = self.slot_freed
        self._codec.rows_accepted(len(progress.rows))

    def slot_freed(self, req: Req) -> None:
        """A request leaves its slot: an aborted one will never ask for its audio."""
        if isinstance(req.finished_reason or req.to_finish, FINISH_ABORT):
            self.forget(req.rid)

    def tick(self) -> None:
        """Send every request whose audio has become whole."""
        for rid, speech in self._codec.results():
            if rid not in self._opened or self._opened[rid] is not speech.progress:
                continue  # aborted meanwhile; its id may belong to another request by now
            if rid in self._held:
                del self._opened[rid]
                self._send(self._held.pop(rid), speech)
            else:
                self._early[rid] = speech

    def abort(self, rid: str | None, abort_all: bool) -> None:
        """End held requests as SGLang ends running ones: by id or by its beginning."""
        for held_rid in [r for r in self._held if abort_all or r.startswith(rid or "")]:
            req = self._held.pop(held_rid)
            self.forget(held_rid)
            req.finished_reason = FINISH_ABORT("the request was aborted")
            super()._stream_output_generation([req], return_logprob=False)

    def forget(self, rid: str) -> None:
        """Drop what the codec does for a request; unknown ids are no error."""
        self._early.pop(rid, None)
        if self._opened.pop(rid, None) is not None:
            self._codec.drop(rid)

    def _stream_output_generation(self, reqs: list[Req], return_logprob: bool, *args: Any, **kwargs: Any) -> None:
        """SGLang's hook for every step's output: hold finished speech, say nothing of unfinished one."""
        passed = []
        for req in reqs:
            if progress_of(req) is None or isinstance(req.finished_reason, FINISH_ABORT):
                passed.append(req)
            elif req.finished() and not req.finished_output and req.rid not in self._held:
                self._end(req)
        super()._stream_output_generation(passed, return_logprob, *args, **kwargs)

    def _end(self, req: Req) -> None:
        speech = self._early.pop(req.rid, None)
        if speech is not None:
            self._opened.pop(req.rid, None)
            self._send(req, speech)
        else:
            self._held[req.rid] = req
            self._codec.finish(req.rid)

    def _send(self, req: Req, speech: Speech) -> None:
        if speech.error is not None:
            req.finished_reason = FINISH_ABORT(speech.error, speech.status)
        else:
            self._sender.wavs[req.rid] = speech.wav_base64
            req.customized_info = {META: [self._meta(req, speech)]}
        super()._stream_output_generation([req], return_logprob=False)

    def _meta(self, req: Req, speech: Speech) -> dict[str, Any]:
        progress = progress_of(req)
        assert progress is not None
        meta = {
            "audio_seconds": speech.n_samples / self._sample_rate,
            "audio_frames": len(speech.codes),
            "reference_cached": progress.request.reference_cached,
            "sampling_seed": progress.request.options.seed,
        }
        if progress.request.options.return_codes:
            meta["audio_codes"] = speech.codes.tolist()
        return meta


def host_row(rows: Tensor, i: int) -> Any:
    """Row i of the host copy [B, 1 + n_vq] that `sampler` made, as an array of its own."""
    return rows[i].numpy().copy()
