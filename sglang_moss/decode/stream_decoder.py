"""Speech streams: from the accepted rows of many requests to their audio, decoded while the rows still come.

A stream holds a slot of the codec's decoder state from its first step to its end; streams beyond the number of slots
wait for one, and lose nothing but time by it, since their rows stay on the host. One step decodes a stretch of several
streams as one batch: the one that is due first, and others of about its length, or where padding costs hardly anything
whoever of the short ones is due next. What somebody listens to is due when the audio sent so far has been played; a
whole answer stands back for some seconds.
"""

import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.decode.stream import STEP_FRAMES, SpeechPart, SpeechStream
from sglang_moss.decode.voice_states import SlotCopier, VoiceStates
from sglang_moss.request.speech import SpeechProgress

logger = logging.getLogger(__name__)

Send = Callable[[str, SpeechPart], None]
_SHORT_FRAMES = 16  # padding a stretch to so many costs little: an H200 decoded 62,000 frames a second
_MIXED = 2  # a step of stretches of several lengths is at most the largest one's size over this: the first waits for it
_KEPT_BACK = 8  # of so many slots, one is not for streams that still run
_DECODING_FAILED = "decoding the audio failed; the server's log says why"


class Runner(SlotCopier, Protocol):
    """What decodes; `codec.runner.DecoderRunner`."""

    pads_freely: bool  # a small step takes hardly longer where stretches are padded to `_SHORT_FRAMES`

    def decode(self, stretches: Sequence[np.ndarray], slots: Sequence[int]) -> list[np.ndarray | None]: ...

    def largest_batch(self, n_frames: int) -> int: ...

    def reset(self, slot: int) -> None: ...


class StreamDecoder:
    """All live streams over one codec. Not thread-safe: one thread owns it.

    Args:
        n_slots: slots of the runner's state for streams, from 0 on.
        n_voices: slots after them, for states of known voices.
    """

    def __init__(
        self,
        runner: Runner,
        tokens: SpecialTokens,
        sample_rate: int,
        frame_samples: int,
        n_slots: int,
        n_voices: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._tokens = tokens
        self._sample_rate = sample_rate
        self._frame_samples = frame_samples
        self._n_slots = n_slots
        self._free_slots = list(range(n_slots))
        self._voices = VoiceStates(runner, range(n_slots, n_slots + n_voices))
        self._priming: dict[bytes, SpeechStream] = {}  # by voice, the stream whose state will be kept
        self._clock = clock
        self._streams: dict[str, SpeechStream] = {}  # in the order in which they were opened
        self.n_waiting = 0  # streams with frames to decode that found no slot

    @property
    def n_decoding(self) -> int:
        """Streams that hold a slot."""
        return self._n_slots - len(self._free_slots)

    def open(self, rid: str, progress: SpeechProgress, is_live: bool) -> None:
        """Take on a request; one that `is_live` is heard while it is made."""
        self._streams[rid] = SpeechStream(
            progress, self._tokens, self._sample_rate, self._frame_samples, is_live, self._clock()
        )

    def finish(self, rid: str) -> None:
        stream = self._streams.get(rid)
        if stream is not None:  # else it failed, and its error is on its way
            stream.finish()

    def drop(self, rid: str) -> None:
        """Forget a stream whose client has gone; unknown ones are no error."""
        stream = self._streams.pop(rid, None)
        if stream is not None:
            self._release(stream)

    def step(self, send: Send) -> bool:
        """Decode one batch and send what it gave; False: nothing is left to do until rows or commands come."""
        for stream in self._streams.values():
            if stream.has_news:
                stream.update()
        self._seat()
        batch = self._next_batch()
        if batch:
            self._decode(batch, send)
        ended = [(rid, stream) for rid, stream in self._streams.items() if stream.is_done]
        for rid, stream in ended:
            self._close(rid, stream.ending(), send)
        # A slot that was freed may be what another stream waits for; rows may have come before `wake_at` was set.
        return bool(batch or ended) or any(stream.has_news for stream in self._streams.values())

    def _seat(self) -> None:
        """Give free slots to streams that have work."""
        waiting = [stream for stream in self._streams.values() if stream.slot is None and stream.stretch]
        waiting.sort(key=lambda stream: not (stream.is_live or stream.finished))  # else first come, first served
        for stream in waiting:
            if len(self._free_slots) > self._n_reserved(stream):
                self._take_slot(stream)
        self.n_waiting = sum(stream.slot is None for stream in waiting)

    def _n_reserved(self, stream: SpeechStream) -> int:
        """Free slots that are not for this stream.

        Streams that have ended drain at the codec's speed, running ones hold their slots for as long as the language
        model speaks.
        """
        if stream.finished:
            return 0
        return self._n_slots // _KEPT_BACK if stream.is_live else (self._n_slots + 2) // 4

    def _take_slot(self, stream: SpeechStream) -> None:
        if stream.alone or stream.voice is None or not self._voices.n_voices:
            self._reset(stream)
            return
        leader = self._priming.get(stream.voice)
        if leader is not None and (leader.is_live or not stream.is_live):
            return  # it is no less urgent, and its state will be there sooner than this stream could decode it
        slot = self._free_slots[-1]
        if self._voices.start(stream.voice, slot):
            stream.slot = self._free_slots.pop()
            stream.skip_prompt()
            stream.update()
        else:
            self._reset(stream)
            self._priming[stream.voice] = stream

    def _reset(self, stream: SpeechStream) -> None:
        stream.slot = self._free_slots.pop()
        self._runner.reset(stream.slot)

    def _next_batch(self) -> dict[str, SpeechStream]:
        """Streams for one step: the one that is due first, and others of about its length.

        On a GPU a small step takes as long as its launches, and on a busy one longer: what counts then is how many
        steps there are. So short stretches share them there, whatever their lengths, as many as the first one can wait
        for. Long ones are not padded to: what that takes, the language model misses.
        """
        ready = {rid: stream for rid, stream in self._streams.items() if stream.slot is not None and stream.stretch}
        if not ready:
            return {}
        by_due = sorted(ready, key=lambda rid: ready[rid].due)
        first = ready[by_due[0]]
        if first.alone:
            return {by_due[0]: first}
        sizes = {rid: _size_class(ready[rid].stretch) for rid in by_due if not ready[rid].alone}
        size = sizes[by_due[0]]
        batch = [rid for rid in sizes if sizes[rid] == size][: self._most(size)]
        if self._runner.pads_freely and size <= _SHORT_FRAMES:
            for rid in [rid for rid in sizes if sizes[rid] != size and sizes[rid] <= _SHORT_FRAMES]:
                padded = max(size, sizes[rid])
                if len(batch) < self._most(padded) // _MIXED:
                    batch.append(rid)
                    size = padded
        return {rid: ready[rid] for rid in batch}

    def _most(self, size: int) -> int:
        """Streams that fit one step whose longest stretch is of this class."""
        return self._runner.largest_batch(min(size, STEP_FRAMES))

    def _decode(self, batch: dict[str, SpeechStream], send: Send) -> None:
        streams = batch.values()
        began = self._clock()
        try:
            decoded = self._runner.decode(
                [stream.next_codes() for stream in streams],
                [stream.slot for stream in streams if stream.slot is not None],
            )
        except Exception:
            logger.exception("decoding %d streams failed", len(batch))
            decoded = [None] * len(batch)
        now = self._clock()
        for (rid, stream), pcm in zip(batch.items(), decoded, strict=True):
            if pcm is None:
                self._try_alone(rid, stream, send)
                continue
            was_priming = stream.is_priming
            text = stream.take(pcm, began, now)
            if was_priming and not stream.is_priming:
                self._primed(stream)
            if text:
                send(rid, SpeechPart(stream.progress, text))

    def _primed(self, stream: SpeechStream) -> None:
        """The prompt audio is decoded: keep the state for the next stream with this voice."""
        assert stream.voice is not None
        assert stream.slot is not None
        if not stream.alone:
            self._voices.keep(stream.voice, stream.slot)
        self._forget_priming(stream)

    def _try_alone(self, rid: str, stream: SpeechStream, send: Send) -> None:
        """After a step that failed: from the beginning, in a fresh slot and by itself, once."""
        if stream.alone:
            logger.error("a stream failed by itself: its audio cannot be decoded, or is not finite")
            self._close(rid, stream.failure(_DECODING_FAILED, HTTPStatus.INTERNAL_SERVER_ERROR), send)
            return
        stream.alone = True
        stream.rewind()
        self._release(stream)

    def _close(self, rid: str, part: SpeechPart, send: Send) -> None:
        self._release(self._streams.pop(rid))
        send(rid, part)

    def _release(self, stream: SpeechStream) -> None:
        self._forget_priming(stream)
        if stream.slot is not None:
            self._free_slots.append(stream.slot)
            stream.slot = None

    def _forget_priming(self, stream: SpeechStream) -> None:
        if stream.voice is not None and self._priming.get(stream.voice) is stream:
            del self._priming[stream.voice]


def slots_for(n_streams: int) -> int:
    """The fewest with which so many live streams never wait for one, though some are kept for those that have ended."""
    return n_streams + (n_streams - 1) // (_KEPT_BACK - 1)


def streams_with(n_slots: int) -> int:
    """The most live streams that never wait for one of so many slots; the inverse of `slots_for`."""
    return n_slots - n_slots // _KEPT_BACK


def _size_class(n_frames: int) -> int:
    """Stretches of one class share a step: at most half of it is padding."""
    return 1 << (n_frames - 1).bit_length()
