"""One request's stream: which frames it has, how many of them its next step takes, and when that is due."""

from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

import numpy as np

from sglang_moss.config import SpecialTokens
from sglang_moss.decode.frames import NEVER, FrameReader
from sglang_moss.decode.wire import ChunkDelivery, Delivery, WholeDelivery
from sglang_moss.delay.state import replay
from sglang_moss.request.speech import GrowingArray, SpeechProgress

STEP_FRAMES = 64  # longest stretch of one stream in one step
_AHEAD_FRAMES = 32  # a chunk longer than this is decoded in parts while it fills
_WHOLE_PATIENCE_S = 10.0  # how long a whole answer stands back behind streams that somebody listens to


@dataclass(frozen=True)
class SpeechPart:
    """What a stream has to send, or at its end what became of it."""

    progress: SpeechProgress  # of the request; its id may belong to another one by now
    text: str = ""  # see `wire`
    is_last: bool = False
    meta: dict[str, Any] | None = None  # for the last message
    error: str | None = None  # why there is no audio, or no more of it
    status: HTTPStatus = HTTPStatus.OK


class SpeechStream:
    """Decoding of one request: the prompt audio first, unheard, then what is generated.

    `stretch` frames are to be decoded next, from `n_decoded` on; `update` sets it when rows have come.
    """

    def __init__(
        self,
        progress: SpeechProgress,
        tokens: SpecialTokens,
        sample_rate: int,
        frame_samples: int,
        is_live: bool,
        now: float,
    ) -> None:
        self.progress = progress
        self.is_live = is_live  # heard while it is made
        self.slot: int | None = None
        self.finished = False  # no more rows will come
        self.alone = False  # decoded by itself, after a step that failed
        self.stretch = 0
        self.n_decoded = 0
        prompt = progress.request.prompt
        self.n_prompt_frames = len(prompt.prompt_codes)
        self.voice = blake2b(prompt.prompt_codes.tobytes()).digest() if self.n_prompt_frames else None
        self.due = now if is_live else now + _WHOLE_PATIENCE_S  # who is due first goes first
        self._tokens = tokens
        self._frame_seconds = frame_samples / sample_rate
        self._frame_samples = frame_samples
        prompt_audio_rows, _ = replay(prompt.rows[:, 0], tokens)  # the prompt audio may be too short for a frame
        self._reader = FrameReader(tokens, continues_prompt=prompt_audio_rows > 0)
        self._frames = GrowingArray(tokens.n_vq)
        self._frames.extend(prompt.prompt_codes)
        self._n_delivered = self.n_prompt_frames  # frames whose audio is handed on, or never shall be
        self._first_sent_at: float | None = None
        self._step = now, now  # when the last one began, and had its samples
        self._is_stale = True  # `stretch` may be larger than it says
        request = progress.request
        self._delivery: Delivery = (
            ChunkDelivery(request, sample_rate, frame_samples) if is_live else WholeDelivery(request, sample_rate)
        )

    def finish(self) -> None:
        """No more rows will come."""
        self.finished = True
        self._reconsider()

    def rewind(self) -> None:
        """Decode from the beginning again; what was handed on is not handed on twice."""
        self.n_decoded = 0
        self._reconsider()

    @property
    def has_news(self) -> bool:
        """Whether `update` could find work; false while there is work already."""
        return self.stretch == 0 and (self._is_stale or len(self.progress.rows) >= self.progress.wake_at)

    def update(self) -> None:
        """Read the rows that have come, set `stretch`, and say at which row there will be more to do."""
        self._frames.extend(self._reader.read(self.progress.rows))
        self._is_stale = False
        self.stretch, n_missing = self._next_stretch()
        self.progress.wake_at = NEVER if self.stretch or self.finished else self._reader.rows_until(n_missing)

    @property
    def is_priming(self) -> bool:
        """Whether the prompt audio is still to be decoded."""
        return self.n_decoded < self.n_prompt_frames

    @property
    def is_done(self) -> bool:
        return self.finished and not self._is_stale and len(self._frames) == self._n_delivered

    def next_codes(self) -> np.ndarray:
        """[stretch, n_vq] codes."""
        return self._frames[self.n_decoded : self.n_decoded + self.stretch]

    def skip_prompt(self) -> None:
        """The slot holds the state after the prompt audio already."""
        self.n_decoded = self.n_prompt_frames
        self._reconsider()

    def take(self, pcm: np.ndarray, began: float, now: float) -> str:
        """Take the [stretch * frame_samples] samples of `next_codes`; returns the text to send now.

        Args:
            began: when the step began that decoded them.
        """
        self._step = began, now
        first = self.n_decoded
        self.n_decoded += self.stretch
        deliver_from = min(max(first, self._n_delivered), self.n_decoded)
        self._n_delivered = max(self._n_delivered, self.n_decoded)
        self._reconsider()
        text = ""
        if deliver_from < self.n_decoded:
            codes = self._frames[deliver_from : self.n_decoded]
            text = self._delivery.add(pcm[(deliver_from - first) * self._frame_samples :], codes)
        if not self.is_live:
            self.due = now + _WHOLE_PATIENCE_S
        elif text:
            if self._first_sent_at is None:
                self._first_sent_at = now
                self._mark()
            self.due = self._first_sent_at + self._delivery.n_frames * self._frame_seconds  # its listener runs dry
            self.progress.heard_until = self.due
        return text

    def ending(self) -> SpeechPart:
        """The last part of a stream that is done."""
        if self._n_delivered == self.n_prompt_frames:
            return self.failure(_no_audio(self.progress, self._tokens), HTTPStatus.BAD_REQUEST)
        if self._first_sent_at is None:
            self._mark()
        text, meta = self._delivery.end()
        return SpeechPart(self.progress, text, is_last=True, meta=meta)

    def failure(self, error: str, status: HTTPStatus) -> SpeechPart:
        return SpeechPart(self.progress, is_last=True, error=error, status=status)

    def _mark(self) -> None:
        """The first chunk is whole, or all there is of it: tell its way since the first row, where somebody asked."""
        progress = self.progress
        if progress.marks is None:
            return
        n_rows = min(self._reader.rows_of(progress.request.options.first_frames), len(progress.accepted))
        accepted, (began, decoded) = progress.accepted[n_rows - 1], self._step
        # What was decoded ahead of the end of a speech that is shorter than a chunk waited for that.
        progress.marks |= {"frames": accepted, "codec": max(began, accepted), "decoded": max(decoded, accepted)}

    def _next_stretch(self) -> tuple[int, int]:
        """Frames of the next step, and if none, how many are missing."""
        n_frames = len(self._frames)
        n_known = self._n_delivered - self.n_decoded
        if n_known > 0 and not (self.finished and n_frames == self._n_delivered):
            boundary = self.n_prompt_frames if self.is_priming else self._n_delivered
            return min(boundary - self.n_decoded, STEP_FRAMES), 0
        n_waiting = n_frames - self._n_delivered
        if self.finished:
            return min(n_waiting, STEP_FRAMES), 0
        n_wanted = min(self._delivery.n_wanted, _AHEAD_FRAMES)
        if n_waiting < n_wanted:
            return 0, n_wanted - n_waiting
        return self._delivery.fitting(min(n_waiting, STEP_FRAMES)), 0

    def _reconsider(self) -> None:
        self.stretch = 0
        self._is_stale = True


def _no_audio(progress: SpeechProgress, tokens: SpecialTokens) -> str:
    """Why a request has nothing to play."""
    n_rows = len(progress.rows)
    if n_rows and progress.rows[-1][0] in (tokens.audio_end, tokens.im_end):
        return (
            f"no audio: the model ended its turn after {n_rows} rows, without a whole frame; send another text or seed"
        )
    return f"no audio: the length was spent after {n_rows} rows, before a frame was whole; raise max_new_tokens"
