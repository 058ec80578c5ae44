"""The codec's thread in the scheduler process: encodes references for the HTTP process, decodes finished frames.

    HTTP process      --waveforms-->  ROUTER socket  --codes-->  HTTP process           (`codec_client`)
    scheduler thread  --commands-->   this thread    --parts-->  scheduler thread       (`output_streamer`)

One thread owns the codec, its states and its CUDA streams, and encodes one window of references between two decoding
steps. The scheduler never waits for it: commands go through a queue, rows are read off the requests where the scheduler
appends them, parts of answers come back through another queue, and each side wakes the other with an empty message on
an in-process socket, one at a time.
"""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Hashable
from contextlib import nullcontext

import numpy as np
import torch
import zmq

from sglang_moss import hooking
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.codec.runner import DecoderRunner
from sglang_moss.codec.state import CodecState
from sglang_moss.config import SpecialTokens
from sglang_moss.decode.clip_encoder import ClipEncoder
from sglang_moss.decode.gauges import CodecGauges, CodecLoad
from sglang_moss.decode.stream import STEP_FRAMES, SpeechPart
from sglang_moss.decode.stream_decoder import StreamDecoder
from sglang_moss.decode.wakeup import Wakeup, switch_soon
from sglang_moss.request.codec_client import CANCEL
from sglang_moss.request.speech import SpeechProgress

logger = logging.getLogger(__name__)

_TO_WORKER = "inproc://sglang-moss-codec"
_TO_SCHEDULER = "inproc://sglang-moss-parts"
_MAX_MESSAGES = 32  # read at a time, whoever sends how many
_MAX_STREAMS = 64  # in one step


class CodecService:
    """Handle of the codec's thread; every method is called from the scheduler's thread.

    Args:
        encoder: of references.
        state: of slots for streams and, the last `n_voices` of them, for states of known voices.
        metrics_labels: of the gauges; None: there are none.
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
        worker = _Worker(
            context, codec.device, ClipEncoder(encoder), decoder, address, wakeups, self._commands, self._parts, gauges
        )
        threading.Thread(target=worker.run, name="moss-codec", daemon=True).start()

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


class _Worker:
    """What runs in the codec's thread."""

    def __init__(
        self,
        context: zmq.Context,
        device: torch.device,
        encoder: ClipEncoder,
        decoder: StreamDecoder,
        address: str,
        wakeups: tuple[Wakeup, Wakeup],
        commands: deque[tuple],
        parts: deque[tuple[str, SpeechPart]],
        gauges: CodecGauges | None,
    ) -> None:
        self._context = context
        self._device = device
        self._encoder = encoder
        self._decoder = decoder
        self._address = address
        self._wakeup, self._to_scheduler = wakeups
        self._commands = commands
        self._parts = parts
        self._gauges = gauges

    def run(self) -> None:
        try:
            self._loop()
        except BaseException:
            logger.critical("the codec's thread died; stopping the server", exc_info=True)
            os._exit(1)  # the HTTP process watches its children: a server without a codec must not look alive

    def _loop(self) -> None:
        self._encode_requests = self._context.socket(zmq.ROUTER)
        self._encode_requests.bind(self._address)
        poller = zmq.Poller()
        poller.register(self._encode_requests, zmq.POLLIN)
        poller.register(self._wakeup.socket, zmq.POLLIN)
        busy = False
        with self._on_own_stream(), torch.inference_mode():
            while True:
                poller.poll(0 if busy else None)
                self._wakeup.clear()
                self._run_commands()
                self._receive()
                busy = self._encoder.step(self._answer)
                busy |= self._decoder.step(self._deliver)
                if self._gauges is not None:
                    load = CodecLoad(self._decoder.n_decoding, self._decoder.n_waiting, self._encoder.n_jobs)
                    self._gauges.show(load)

    def _on_own_stream(self) -> torch.cuda.StreamContext | nullcontext:
        if self._device.type != "cuda":
            return nullcontext()
        torch.cuda.set_device(self._device)
        return torch.cuda.stream(torch.cuda.Stream(self._device))

    def _run_commands(self) -> None:
        verbs = {"open": self._decoder.open, "finish": self._decoder.finish, "drop": self._decoder.drop}
        while self._commands:
            verb, *operands = self._commands.popleft()
            verbs[verb](*operands)

    def _deliver(self, rid: str, part: SpeechPart) -> None:
        self._parts.append((rid, part))
        self._to_scheduler.signal()

    def _receive(self) -> None:
        """Take in what clients have sent: jobs, and cancellations of some that are not done."""
        for _ in range(_MAX_MESSAGES):
            if not self._encode_requests.poll(0):
                return
            frames = self._encode_requests.recv_multipart(copy=False)  # a waveform has megabytes
            job, payloads = (frames[0].bytes, frames[1].bytes), frames[2:]
            if not payloads:  # somebody asks whether this thread answers, and what this process has seen of hooks
                self._encode_requests.send_multipart([*job, b"", json.dumps(hooking.runs()).encode()])
            elif len(payloads) == 1 and bytes(payloads[0].buffer[: len(CANCEL) + 1]) == CANCEL:
                self._encoder.drop(job)
            else:
                self._encoder.open(job, [np.frombuffer(payload.buffer, np.float32) for payload in payloads])

    def _answer(self, job: Hashable, codes: list[np.ndarray] | None) -> None:
        """Send a job's codes, [T, n_vq] int16 for each of its waveforms, or say that it failed."""
        assert isinstance(job, tuple)
        if codes is None:
            answer = [b"the codec could not encode a reference; the server's log says why"]
        else:
            answer = [b"", *(c.tobytes() for c in codes)]
        self._encode_requests.send_multipart([*job, *answer])
