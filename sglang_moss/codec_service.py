"""The codec's thread in the scheduler process: encodes references for the HTTP process, decodes finished frames.

    HTTP process      --waveforms-->  ROUTER socket  --codes-->  HTTP process           (`codec_client`)
    scheduler thread  --commands-->   this thread    --speech--> scheduler thread       (`output`)

One thread owns the codec, its decoder state and its CUDA stream. The scheduler never waits for it: commands go through
a queue, rows are read off the requests where the scheduler appends them, results come back through another queue, and
each side wakes the other with an empty message on an in-process socket.
"""

import logging
import os
import threading
from collections import deque
from contextlib import nullcontext, suppress

import numpy as np
import torch
import zmq

from sglang_moss.codec.codec import Codec
from sglang_moss.codec.state import DecoderState
from sglang_moss.config import SpecialTokens
from sglang_moss.speech import SpeechProgress
from sglang_moss.streams import DECODE_AHEAD_FRAMES, Speech, StreamDecoder

logger = logging.getLogger(__name__)

_TO_WORKER = "inproc://sglang-moss-codec"
_TO_SCHEDULER = "inproc://sglang-moss-speech"
_MAX_ENCODE_SECONDS = 120  # of audio in one padded pass, padding included


class CodecService:
    """Handle of the codec's thread; every method is called from the scheduler's thread."""

    def __init__(self, codec: Codec, state: DecoderState, tokens: SpecialTokens, address: str) -> None:
        self._context = zmq.Context()
        self._wake_worker = self._context.socket(zmq.PUSH)
        self._wake_worker.bind(_TO_WORKER)
        self.woken = self._context.socket(zmq.PULL)  # readable when results are waiting
        self.woken.bind(_TO_SCHEDULER)
        self._commands: deque[tuple] = deque()
        self._results: deque[tuple[str, Speech]] = deque()
        worker = _Worker(self._context, codec, state, tokens, address, self._commands, self._results)
        threading.Thread(target=worker.run, name="moss-codec", daemon=True).start()

    def open(self, rid: str, progress: SpeechProgress) -> None:
        """Start a stream; its rows are read off `progress` from now on."""
        self._send("open", rid, progress)

    def finish(self, rid: str) -> None:
        """No more rows will come: the stream's `Speech` is due."""
        self._send("finish", rid)

    def drop(self, rid: str) -> None:
        self._send("drop", rid)

    def rows_accepted(self, n_rows: int) -> None:
        """Tell now and then that a stream has grown."""
        if n_rows % (DECODE_AHEAD_FRAMES // 2) == 0:
            self._wake()

    def results(self) -> list[tuple[str, Speech]]:
        """Streams that have ended since the last call."""
        while self.woken.poll(0):
            self.woken.recv()
        return [self._results.popleft() for _ in range(len(self._results))]

    def _send(self, *command: object) -> None:
        self._commands.append(command)
        self._wake()

    def _wake(self) -> None:
        with suppress(zmq.Again):  # so many wake-ups wait already that one more says nothing
            self._wake_worker.send(b"", zmq.NOBLOCK)


_EncodeRequest = tuple[bytes, bytes, list[torch.Tensor]]  # client, id, waveforms


class _Worker:
    """What runs in the codec's thread."""

    def __init__(
        self,
        context: zmq.Context,
        codec: Codec,
        state: DecoderState,
        tokens: SpecialTokens,
        address: str,
        commands: deque[tuple],
        results: deque[tuple[str, Speech]],
    ) -> None:
        self._context = context
        self._codec = codec
        self._tokens = tokens
        self._address = address
        self._commands = commands
        self._results = results
        self._decoder = StreamDecoder(codec, state, tokens)
        self._waiting: deque[_EncodeRequest] = deque()

    def run(self) -> None:
        try:
            self._loop()
        except BaseException:
            logger.critical("the codec's thread died; stopping the server", exc_info=True)
            os._exit(1)  # the HTTP process watches its children: a server without a codec must not look alive

    def _loop(self) -> None:
        self._encode_requests = self._context.socket(zmq.ROUTER)
        self._encode_requests.bind(self._address)
        self._woken = self._context.socket(zmq.PULL)
        self._woken.connect(_TO_WORKER)
        self._wake_scheduler = self._context.socket(zmq.PUSH)
        self._wake_scheduler.connect(_TO_SCHEDULER)
        poller = zmq.Poller()
        poller.register(self._encode_requests, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        busy = False
        with self._on_own_stream(), torch.inference_mode():
            while True:
                poller.poll(0 if busy else None)
                while self._woken.poll(0):
                    self._woken.recv()
                self._obey()
                busy = self._encode_next()
                busy |= self._decoder.step(self._deliver)

    def _on_own_stream(self) -> torch.cuda.StreamContext | nullcontext:
        device = self._codec.device
        if device.type != "cuda":
            return nullcontext()
        torch.cuda.set_device(device)
        return torch.cuda.stream(torch.cuda.Stream(device))

    def _obey(self) -> None:
        verbs = {"open": self._decoder.open, "finish": self._decoder.finish, "drop": self._decoder.drop}
        while self._commands:
            verb, *operands = self._commands.popleft()
            verbs[verb](*operands)

    def _deliver(self, rid: str, speech: Speech) -> None:
        self._results.append((rid, speech))
        self._wake_scheduler.send(b"")

    def _encode_next(self) -> bool:
        """Encode some of what waits, [client, id, waveform...] -> [client, id, "", codes...]; False: nothing waited.

        One padded pass, so that streams are not kept waiting by a flood of references.
        """
        while self._encode_requests.poll(0):
            client, job, *payloads = self._encode_requests.recv_multipart()
            waveforms = [torch.from_numpy(np.frombuffer(bytearray(p), np.float32)) for p in payloads]
            self._waiting.append((client, job, waveforms))
        batch = self._next_batch()
        if not batch:
            return False
        try:
            codes = iter(self._encode([waveform for *_, waveforms in batch for waveform in waveforms]))
            answers = [[next(codes) for _ in waveforms] for *_, waveforms in batch]
        except Exception:
            logger.exception("encoding %d requests failed", len(batch))
            for client, job, waveforms in batch:
                self._encode_alone(client, job, waveforms)
        else:
            for (client, job, _), answer in zip(batch, answers, strict=True):
                self._encode_requests.send_multipart([client, job, b"", *answer])
        return True

    def _encode_alone(self, client: bytes, job: bytes, waveforms: list[torch.Tensor]) -> None:
        """Second try for a request whose company failed: a fault must not cost another request's work."""
        try:
            answer = [b"", *(codes for waveform in waveforms for codes in self._encode([waveform]))]
        except Exception:
            logger.exception("encoding a reference failed")
            answer = [b"the codec could not encode a reference; the server's log says why"]
        self._encode_requests.send_multipart([client, job, *answer])

    def _encode(self, waveforms: list[torch.Tensor]) -> list[bytes]:
        """For each waveform, its codes [T, n_vq] as int16 bytes."""
        codes = self._codec.encode([waveform.to(self._codec.device) for waveform in waveforms])
        return [c[:, : self._tokens.n_vq].cpu().numpy().astype(np.int16).tobytes() for c in codes]

    def _next_batch(self) -> list[_EncodeRequest]:
        """Requests in the order they came, as many as fit one padded pass, but at least one if any waits."""
        limit = _MAX_ENCODE_SECONDS * self._codec.config.sampling_rate
        batch: list[_EncodeRequest] = []
        n_waveforms = longest = 0
        while self._waiting:
            waveforms = self._waiting[0][2]
            n_waveforms += len(waveforms)
            longest = max([longest, *(len(w) for w in waveforms)])
            if batch and n_waveforms * longest > limit:
                break
            batch.append(self._waiting.popleft())
        return batch
