"""The codec's threads in the scheduler process: one decodes finished frames, one encodes references.

    HTTP process      --waveforms-->  encoder's thread   --codes-->  HTTP process       (`encode_requests`)
    scheduler thread  --commands-->   decoder's thread   --parts-->  scheduler thread   (`output_streamer`)

Each owns its state and its CUDA stream; where the encoder is not on tensor cores they are one thread, which encodes one
window of references between two decoding steps. The scheduler never waits for them: commands go through a queue, rows
are read off the requests where the scheduler appends them, parts of answers come back through another queue, and each
side wakes the other with an empty message on an in-process socket, one at a time.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

import torch
import zmq

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.codec.precision import FP16X3
from sglang_moss.codec.runner import DecoderRunner
from sglang_moss.codec.state import CodecState
from sglang_moss.config import SpecialTokens
from sglang_moss.decode.clip_encoder import ClipEncoder
from sglang_moss.decode.encode_requests import EncodeLoop, EncodeRequests, References
from sglang_moss.decode.gauges import CodecGauges, CodecLoad
from sglang_moss.decode.stream import STEP_FRAMES, SpeechPart
from sglang_moss.decode.stream_decoder import StreamDecoder
from sglang_moss.decode.wakeup import Wakeup, switch_soon
from sglang_moss.request.speech import SpeechProgress

logger = logging.getLogger(__name__)

_TO_WORKER = "inproc://sglang-moss-codec"
_TO_SCHEDULER = "inproc://sglang-moss-parts"
_MAX_STREAMS = 64  # in one step


class CodecService:
    """Handle of the decoder's thread; every method is called from the scheduler's thread.

    Args:
        encoder: of references.
        state: of slots for streams and, the last `n_voices` of them, for states of known voices.
        metrics_labels: of the gauges; None: there are none.
        encodes_beside: references are encoded in a thread of their own; None: where they are on tensor cores.
    """

    def __init__(
        self,
        codec: Codec,
        encoder: EncoderRunner,
        state: CodecState,
        tokens: SpecialTokens,
        address: str,
        n_voices: int = 0,
        metrics_labels: dict[str, str] | None = None,
        encodes_beside: bool | None = None,
    ) -> None:
        switch_soon()
        n_slots = state.n_slots - n_voices
        # Built here and not in the thread: graphs are captured in the main one.
        runner = DecoderRunner(
            codec, state, tokens.n_vq, max_streams=min(n_slots, _MAX_STREAMS), max_frames=STEP_FRAMES
        )
        rate, frame_samples = codec.config.sampling_rate, codec.config.frame_samples
        decoder = StreamDecoder(runner, tokens, rate, frame_samples, n_slots, n_voices)
        context = zmq.Context()
        self._to_worker = Wakeup(context, _TO_WORKER)
        self._to_scheduler = Wakeup(context, _TO_SCHEDULER)
        self.woken = self._to_scheduler.socket  # readable when parts are waiting
        self._commands: deque[tuple] = deque()
        self._parts: deque[tuple[str, SpeechPart]] = deque()
        wakeups = (self._to_worker, self._to_scheduler)
        gauges = None if metrics_labels is None else CodecGauges(metrics_labels, n_slots)
        clips = ClipEncoder(encoder)
        if encodes_beside is None:
            encodes_beside = codec.device.type == "cuda" and codec.encoder_precision == FP16X3
        references: References
        if encodes_beside:
            references = beside = EncodeLoop(context, address, clips)
            _start("moss-encoder", codec.device, beside.run)
        else:
            references = EncodeRequests(context, address, clips)
        worker = _Worker(clips, references, decoder, wakeups, self._commands, self._parts, gauges)
        _start("moss-codec", codec.device, worker.run)

    def open(self, rid: str, progress: SpeechProgress, is_live: bool) -> None:
        """Start a stream; its rows are read off `progress` from now on."""
        self._send("open", rid, progress, is_live)

    def finish(self, rid: str) -> None:
        """No more rows will come: the stream's last part is due."""
        self._send("finish", rid)

    def drop(self, rid: str) -> None:
        self._send("drop", rid)

    def row_accepted(self, progress: SpeechProgress) -> None:
        """Tell that a stream has grown; wakes the thread only where that gives it something to do."""
        if len(progress.rows) >= progress.wake_at:
            self._to_worker.signal()

    def parts(self) -> list[tuple[str, SpeechPart]]:
        """What streams have sent since the last call, in order."""
        if not self._to_scheduler.clear():
            return []
        return [self._parts.popleft() for _ in range(len(self._parts))]

    def _send(self, *command: object) -> None:
        self._commands.append(command)
        self._to_worker.signal()


def _start(name: str, device: torch.device, run: Callable[[], None]) -> None:
    """Run `run` for as long as the process lives, in a thread with a CUDA stream of its own."""

    def live() -> None:
        try:
            with _own_stream(device), torch.inference_mode():
                run()
        except BaseException:
            logger.critical("the codec's thread %s died; stopping the server", name, exc_info=True)
            os._exit(1)  # the HTTP process watches its children: a server without a codec must not look alive

    threading.Thread(target=live, name=name, daemon=True).start()


def _own_stream(device: torch.device) -> torch.cuda.StreamContext | nullcontext:
    if device.type != "cuda":
        return nullcontext()
    torch.cuda.set_device(device)
    return torch.cuda.stream(torch.cuda.Stream(device))


class _Worker:
    """What runs in the decoder's thread."""

    def __init__(
        self,
        encoder: ClipEncoder,
        references: References,
        decoder: StreamDecoder,
        wakeups: tuple[Wakeup, Wakeup],
        commands: deque[tuple],
        parts: deque[tuple[str, SpeechPart]],
        gauges: CodecGauges | None,
    ) -> None:
        """
        Args:
            encoder: whose jobs are counted, wherever they are done.
        """
        self._encoder = encoder
        self._references = references
        self._decoder = decoder
        self._wakeup, self._to_scheduler = wakeups
        self._commands = commands
        self._parts = parts
        self._gauges = gauges

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._references.socket, zmq.POLLIN)
        poller.register(self._wakeup.socket, zmq.POLLIN)
        busy = False
        while True:
            poller.poll(0 if busy else None)
            self._wakeup.clear()
            self._run_commands()
            busy = self._references.turn()
            busy |= self._decoder.step(self._deliver)
            if self._gauges is not None:
                load = CodecLoad(self._decoder.n_decoding, self._decoder.n_waiting, self._encoder.n_jobs)
                self._gauges.show(load)

    def _run_commands(self) -> None:
        verbs = {"open": self._decoder.open, "finish": self._decoder.finish, "drop": self._decoder.drop}
        while self._commands:
            verb, *operands = self._commands.popleft()
            verbs[verb](*operands)

    def _deliver(self, rid: str, part: SpeechPart) -> None:
        self._parts.append((rid, part))
        self._to_scheduler.signal()
