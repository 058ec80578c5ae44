"""References to codes, in the HTTP process: asks the codec's threads in the scheduler process, and remembers.

Codes are a function of the clip's bytes, so they are kept by content; clips that several requests ask for at the same
time are encoded once.
"""

import asyncio
import itertools
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
import zmq
import zmq.asyncio

from sglang_moss.errors import MossError, ServerBusy

_PATIENCE_S = 600  # the last resort: who would wait for long is refused before he does, see `backlog`
_RETRY_AFTER_S = 30
CANCEL = b"cancel"  # in the place of waveforms: nobody waits for this job any more
ENTRY_BYTES = 512  # of key and bookkeeping; a clip below one frame has no codes at all


class CodecClient:
    """Encodes waveforms over the codec service's socket. Belongs to one event loop."""

    def __init__(self, address: str, n_vq: int) -> None:
        self._n_vq = n_vq
        self._socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._socket.connect(address)
        self._jobs = itertools.count()
        self._pending: dict[bytes, asyncio.Future[list[bytes]]] = {}
        self._reader: asyncio.Task | None = None

    async def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[L] float32 waveforms at the codec's rate -> [T, n_vq] int32 codes of each.

        Raises:
            MossError: the codec failed.
            ServerBusy: it has not come to it.
        """
        if not waveforms:
            return []  # a job without any asks for something else
        answers = await self._ask([np.ascontiguousarray(w, np.float32).data.cast("B") for w in waveforms])
        return [self._codes(payload) for payload in answers]

    async def hook_runs(self) -> dict[str, int]:
        """How often each hook has run in the scheduler process, once the codec's threads have come to answer.

        Raises:
            MossError: see `encode`.
        """
        [answer] = await self._ask([])
        return json.loads(answer)

    async def _ask(self, payloads: Sequence[memoryview]) -> list[bytes]:
        """What the codec answers; it takes jobs between two steps."""
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_answers())
        job = str(next(self._jobs)).encode()
        answer = asyncio.get_running_loop().create_future()
        self._pending[job] = answer
        try:
            await self._socket.send_multipart([job, *payloads], copy=False)  # a waveform has megabytes
            return await asyncio.wait_for(answer, _PATIENCE_S)
        except TimeoutError:
            raise ServerBusy(f"the codec did not come to a reference within {_PATIENCE_S} s", _RETRY_AFTER_S) from None
        finally:
            del self._pending[job]
            if answer.cancelled() or not answer.done():
                self._socket.send_multipart([job, CANCEL])

    async def _read_answers(self) -> None:
        while True:
            job, error, *payloads = await self._socket.recv_multipart()
            answer = self._pending.get(job)
            if answer is None or answer.done():
                continue  # its request has gone
            if error:
                answer.set_exception(MossError(error.decode()))
            else:
                answer.set_result(payloads)

    def _codes(self, payload: bytes) -> np.ndarray:
        return np.frombuffer(payload, np.int16).reshape(-1, self._n_vq).astype(np.int32)


@dataclass(frozen=True)
class Cached:
    """A value of the cache, and whether it had been there before it was asked for."""

    codes: np.ndarray
    was_cached: bool


@dataclass
class _Filling:
    """An encoding on its way, and how many wait for it."""

    task: asyncio.Task[np.ndarray]
    n_waiting: int = 0


class CodeCache:
    """Codes by content, least recently used first out, bounded by size. Belongs to one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._codes: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._running: dict[bytes, _Filling] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._codes

    def is_coming(self, key: bytes) -> bool:
        """Whether codes are there, or are being made."""
        return key in self._codes or key in self._running

    async def get(self, key: bytes, encode: Callable[[], Awaitable[np.ndarray]]) -> Cached:
        """The codes under `key`; made by `encode` if they are not there, once for all who wait."""
        if key in self._codes:
            self._codes.move_to_end(key)
            return Cached(self._codes[key], was_cached=True)
        filling = self._running.get(key)
        if filling is None:
            filling = self._running[key] = _Filling(asyncio.ensure_future(self._fill(key, encode)))
        filling.n_waiting += 1
        try:
            # Shielded: a client that goes away must not cancel the encoding that another one waits for.
            return Cached(await asyncio.shield(filling.task), was_cached=False)
        finally:
            filling.n_waiting -= 1
            if filling.n_waiting == 0 and not filling.task.done():
                del self._running[key]  # who asks from now on starts anew
                filling.task.cancel()

    async def _fill(self, key: bytes, encode: Callable[[], Awaitable[np.ndarray]]) -> np.ndarray:
        try:
            codes = await encode()
        finally:
            filling = self._running.get(key)
            if filling is not None and filling.task is asyncio.current_task():  # else it was given up
                del self._running[key]
        self._codes[key] = codes
        self._n_bytes += codes.nbytes + ENTRY_BYTES
        while self._n_bytes > self._max_bytes:
            _, evicted = self._codes.popitem(last=False)
            self._n_bytes -= evicted.nbytes + ENTRY_BYTES
        return codes
