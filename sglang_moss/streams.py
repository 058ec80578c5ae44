"""Speech streams: from the accepted rows of many requests to their WAVs, decoded while the rows still come.

A stream holds a slot of the codec's decoder state from its first frames to its end; streams beyond the number of slots
wait for one, and lose nothing but time by it, since their rows stay on the host. One step decodes a stretch of every
stream that has enough frames, as one ragged batch.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus

import numpy as np
import torch

from sglang_moss.audio.wav import WavBase64, pcm16
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.state import DecoderState
from sglang_moss.config import SpecialTokens
from sglang_moss.delay import replay
from sglang_moss.frames import FrameReader
from sglang_moss.speech import SpeechProgress

logger = logging.getLogger(__name__)

STEP_FRAMES = 64  # longest stretch of one stream in one step
DECODE_AHEAD_FRAMES = 32  # a stream that is not finished waits for so many
_DECODING_FAILED = "decoding the audio failed; the server's log says why"


@dataclass(frozen=True)
class Speech:
    """What became of one request: its WAV, or the reason why there is none."""

    wav_base64: str = ""
    n_samples: int = 0
    codes: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int64))  # [frames, n_vq]
    error: str | None = None
    status: HTTPStatus = HTTPStatus.OK
    progress: SpeechProgress | None = None  # of the request; its id may belong to another one by now


class SpeechStream:
    """Decoding of one request."""

    def __init__(self, progress: SpeechProgress, tokens: SpecialTokens, sample_rate: int) -> None:
        self.progress = progress
        self._tokens = tokens
        self.sample_rate = sample_rate
        self.slot: int | None = None
        self.finished = False  # no more rows will come
        self.alone = False  # decoded by itself after a step that failed
        prompt = progress.request.prompt
        prompt_audio_rows, _ = replay(prompt.rows[:, 0], tokens)  # the prompt audio may be too short for a frame
        self._reader = FrameReader(tokens, continues_prompt=prompt_audio_rows > 0)
        self.frames = prompt.prompt_codes.astype(np.int64)  # prompt audio, then what was generated
        self.rewind()

    def rewind(self) -> None:
        """Decode from the beginning again."""
        self.n_decoded = 0
        self.n_samples = 0
        self._wav = WavBase64(self.sample_rate)

    @property
    def n_prompt_frames(self) -> int:
        return len(self.progress.request.prompt.prompt_codes)

    def read_rows(self) -> None:
        new = self._reader.read(self.progress.rows)
        if len(new):
            self.frames = np.concatenate([self.frames, new])

    @property
    def n_waiting(self) -> int:
        return len(self.frames) - self.n_decoded

    @property
    def is_ready(self) -> bool:
        """Whether a step should take this stream on: a prompt counts as soon as something follows it."""
        if len(self.frames) == self.n_prompt_frames:
            return False
        return self.n_waiting >= (1 if self.finished else DECODE_AHEAD_FRAMES)

    @property
    def is_done(self) -> bool:
        return self.finished and not self.is_ready

    def append(self, samples: np.ndarray, n_frames: int) -> None:
        """Take the [L] float32 samples of the next `n_frames` frames; those of the prompt are not heard."""
        frame_samples = len(samples) // n_frames
        n_unheard = min(n_frames, max(0, self.n_prompt_frames - self.n_decoded))
        heard = samples[n_unheard * frame_samples :]
        self._wav.append(pcm16(heard).tobytes())
        self.n_samples += len(heard)
        self.n_decoded += n_frames

    def result(self) -> Speech:
        if self.n_samples == 0:
            return Speech(error=_no_audio(self.progress, self._tokens), status=HTTPStatus.BAD_REQUEST)
        codes = self.frames[self.n_prompt_frames :]
        return Speech(wav_base64=self._wav.finish(), n_samples=self.n_samples, codes=codes)


class StreamDecoder:
    """All live streams over one codec. Not thread-safe: one thread owns it."""

    def __init__(self, codec: Codec, state: DecoderState, tokens: SpecialTokens) -> None:
        self._codec = codec
        self._tokens = tokens
        self._state = state
        self._free_slots = list(range(state.n_slots))
        self._streams: dict[str, SpeechStream] = {}

    def open(self, rid: str, progress: SpeechProgress) -> None:
        self._streams[rid] = SpeechStream(progress, self._tokens, self._codec.config.sampling_rate)

    def finish(self, rid: str) -> None:
        stream = self._streams.get(rid)
        if stream is not None:  # else it failed, and its error is on its way
            stream.finished = True

    def drop(self, rid: str) -> None:
        """Forget a stream whose client has gone; unknown ones are no error."""
        stream = self._streams.pop(rid, None)
        if stream is not None:
            self._release(stream)

    def step(self, done: Callable[[str, Speech], None]) -> bool:
        """Decode one stretch of every stream that is ready; hand finished ones to `done`. False: nothing was to do."""
        for stream in self._streams.values():
            stream.read_rows()
        batch = self._next_batch()
        if batch:
            self._decode(batch, done)
        closed = [rid for rid, stream in self._streams.items() if stream.is_done]
        for rid in closed:
            self._close(rid, self._streams[rid].result(), done)
        return bool(batch or closed)  # a slot that was closed may be what another stream waits for

    def _next_batch(self) -> dict[str, SpeechStream]:
        """Streams for one step, first come first served; one that failed in company goes by itself."""
        batch: dict[str, SpeechStream] = {}
        for rid, stream in self._streams.items():
            if not stream.is_ready or (stream.slot is None and not self._take_slot(stream)):
                continue
            if stream.alone:
                return {rid: stream}
            batch[rid] = stream
        return batch

    def _take_slot(self, stream: SpeechStream) -> bool:
        # Streams that have ended come first: they drain at the codec's speed, running ones at the language model's.
        n_reserved = 0 if stream.finished else (self._state.n_slots + 2) // 4
        if len(self._free_slots) <= n_reserved:
            return False
        stream.slot = self._free_slots.pop()
        self._state.reset([stream.slot])
        return True

    def _decode(self, batch: dict[str, SpeechStream], done: Callable[[str, Speech], None]) -> None:
        try:
            waveforms = self._decode_batch(list(batch.values()))
            for stream, (samples, n_frames) in zip(batch.values(), waveforms, strict=True):
                stream.append(samples, n_frames)
        except Exception:
            logger.exception("decoding %d streams failed", len(batch))
            for rid, stream in batch.items():
                if stream.alone:
                    self._close(rid, Speech(error=_DECODING_FAILED, status=HTTPStatus.INTERNAL_SERVER_ERROR), done)
                else:
                    stream.alone = True
                    stream.rewind()
                    self._release(stream)

    def _decode_batch(self, streams: list[SpeechStream]) -> list[tuple[np.ndarray, int]]:
        """For each stream, the samples of its next stretch, [L] float32, and the frames they are."""
        counts = [min(stream.n_waiting, STEP_FRAMES) for stream in streams]
        codes = np.zeros((len(streams), max(counts), self._tokens.n_vq), np.int64)
        for b, (stream, count) in enumerate(zip(streams, counts, strict=True)):
            codes[b, :count] = stream.frames[stream.n_decoded : stream.n_decoded + count]
        device = self._codec.device
        samples = self._codec.decode_step(
            self._state,
            torch.from_numpy(codes).to(device),
            torch.tensor(counts, device=device),
            torch.tensor([stream.slot for stream in streams], device=device),
        )
        frame_samples = self._codec.config.frame_samples
        host = samples.float().cpu().numpy()
        return [(host[b, : count * frame_samples], count) for b, count in enumerate(counts)]

    def _close(self, rid: str, speech: Speech, done: Callable[[str, Speech], None]) -> None:
        stream = self._streams.pop(rid)
        self._release(stream)
        done(rid, replace(speech, progress=stream.progress))

    def _release(self, stream: SpeechStream) -> None:
        if stream.slot is not None:
            self._free_slots.append(stream.slot)
            stream.slot = None


def _no_audio(progress: SpeechProgress, tokens: SpecialTokens) -> str:
    """Why a request has nothing to play."""
    n_rows = len(progress.rows)
    if n_rows and progress.rows[-1][0] in (tokens.audio_end, tokens.im_end):
        return (
            f"no audio: the model ended its turn after {n_rows} rows, without a whole frame; send another text or seed"
        )
    return f"no audio: the length was spent after {n_rows} rows, before a frame was whole; raise max_new_tokens"
