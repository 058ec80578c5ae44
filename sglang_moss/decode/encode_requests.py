"""References that the HTTP process sends to be encoded: jobs off a socket, a window at a time, and their codes back.

Where their products run on a GPU's tensor cores, in a thread of their own: neither waits a new voice for the steps of
streams then nor streams for its steps, each of which is longer the more the language model has to do. Elsewhere, where
both would slow each other down, the thread that decodes does this too, one window between two steps.
"""

import json
from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

import numpy as np
import zmq

from sglang_moss import hooking
from sglang_moss.decode.clip_encoder import ClipEncoder
from sglang_moss.decode.wakeup import Wakeup
from sglang_moss.request.codec_client import CANCEL

_MAX_MESSAGES = 32  # read at a time, whoever sends how many
_ASKED, _TOLD = "inproc://sglang-moss-asked", "inproc://sglang-moss-told"

Job = tuple[bytes, bytes]  # the client, and its own number of the job


class References(Protocol):
    """What the decoder's thread has to do with references.

    Attributes:
        socket: readable where there is something.
    """

    socket: zmq.Socket

    def turn(self) -> bool:
        """Do what is there between two decoding steps; false: there is no more."""
        ...


class EncodeRequests:
    """Clients' jobs. Belongs to one thread from its first turn on.

    Args:
        asked: is given the job of somebody who asks whether the codec answers, see `tell`.
    """

    def __init__(
        self, context: zmq.Context, address: str, encoder: ClipEncoder, asked: Callable[[Job], None] | None = None
    ) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.bind(address)
        self._encoder = encoder
        self._asked = asked or self.tell

    def receive(self) -> None:
        """Take in what clients have sent: jobs, and cancellations of some that are not done."""
        for _ in range(_MAX_MESSAGES):
            if not self.socket.poll(0):
                return
            frames = self.socket.recv_multipart(copy=False)  # a waveform has megabytes
            job, payloads = (frames[0].bytes, frames[1].bytes), frames[2:]
            if not payloads:
                self._asked(job)
            elif len(payloads) == 1 and bytes(payloads[0].buffer[: len(CANCEL) + 1]) == CANCEL:
                self._encoder.drop(job)
            else:
                self._encoder.open(job, [np.frombuffer(payload.buffer, np.float32) for payload in payloads])

    def turn(self) -> bool:
        """Take jobs in, and encode one window of some clips; False: no job is left."""
        self.receive()
        return self._encoder.step(self._answer)

    def tell(self, job: Job) -> None:
        """Answer who asks whether the codec does, with what this process has seen of hooks."""
        self.socket.send_multipart([*job, b"", json.dumps(hooking.runs()).encode()])

    def _answer(self, job: Hashable, codes: list[np.ndarray] | None) -> None:
        """Send a job's codes, [T, n_vq] int16 for each of its waveforms, or say that it failed."""
        assert isinstance(job, tuple)
        if codes is None:
            answer = [b"the codec could not encode a reference; the server's log says why"]
        else:
            answer = [b"", *(c.tobytes() for c in codes)]
        self.socket.send_multipart([*job, *answer])


class EncodeLoop:
    """What runs in the encoder's own thread. Who asks whether the codec answers is answered by the decoder's thread.

    Attributes:
        socket: wakes the decoder's thread, for its `turn`, and to show how much there is to do.
    """

    def __init__(self, context: zmq.Context, address: str, encoder: ClipEncoder) -> None:
        self._encoder = encoder
        self._requests = EncodeRequests(context, address, encoder, self._ask)
        self._asked, self._told = Wakeup(context, _ASKED), Wakeup(context, _TOLD)
        self.socket = self._asked.socket
        self._questions: deque[Job] = deque()
        self._answers: deque[Job] = deque()

    def run(self) -> None:
        requests = self._requests
        poller = zmq.Poller()
        poller.register(requests.socket, zmq.POLLIN)
        poller.register(self._told.socket, zmq.POLLIN)
        busy, n_jobs = False, 0
        while True:
            poller.poll(0 if busy else None)
            self._told.clear()
            while self._answers:
                requests.tell(self._answers.popleft())
            busy = requests.turn()
            if self._encoder.n_jobs != n_jobs:
                n_jobs = self._encoder.n_jobs
                self._asked.signal()

    def turn(self) -> bool:
        """In the decoder's thread: it answers who asks whether it does; always False."""
        self._asked.clear()
        while self._questions:
            self._answers.append(self._questions.popleft())
            self._told.signal()
        return False

    def _ask(self, job: Job) -> None:
        self._questions.append(job)
        self._asked.signal()
