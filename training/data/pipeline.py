"""Decoding and encoding at once: which process does what next.

    jobs, in order -> a decoder each -> waveforms on disk, sorted by length -> batches -> an encoder each -> journal

Whoever leads does nothing heavy and holds no samples. Decoders run ahead by a bounded number of clips and of seconds;
encoders always have their next batch. What is here when the run is killed is done again, the journal is kept.
"""

import bisect
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from .errors import DataError
from .journal import Entry, Journal
from .messages import ClipTask, DecodedClip, EncodedClip, EncodeTask, Failure, FileStamp, Ready
from .workers import Worker, WorkerDied, close_all

_LOOK_AHEAD_CLIPS = 512
_LOOK_AHEAD_S = 3600.0  # for each encoder; 350 MB of waveforms
_BATCH_S = 1200.0
_BATCH_CLIPS = 128  # a message that fits a pipe, whoever reads
_FIRST_CLIPS = 16  # that an idle encoder waits for, while more are coming
_MAX_DEATHS = 20  # of decoders in a row
GO_ON = "run the same command again to go on"


@dataclass(frozen=True)
class Job:
    """A clip that has no codes yet.

    Attributes:
        key: line and part of a target; path of a reference.
        where: the record that it is of, or the first one, to people.
        is_last_of_record: the last clip of a target.
    """

    key: tuple[int, int] | str
    path: Path
    max_samples: int
    where: str
    is_last_of_record: bool = False


@dataclass(frozen=True)
class _Waiting:
    """A clip between its decoder and its encoder."""

    n_frames: int
    order: int
    job: Job
    stamp: FileStamp | None
    clip: DecodedClip


@dataclass
class Counts:
    """What a run has done so far, besides what earlier ones had done."""

    encoded_frames: int = 0
    clips: int = 0
    problems: int = 0
    busy_s: float = 0.0  # of all encoders together
    ready_at: float | None = None  # by the monotonic clock, when the first encoder had its weights
    encoding_s: float = 0.0  # from then on


class Pipeline:
    """One run over some jobs.

    Args:
        new_decoder: starts a decoding process.
        encoders: processes that are loading, see `encoders`.
        spool: folder for waveforms.
        frame_rate: frames a second.
        on_done: called with each job that is done, and its problem if there is one.
    """

    def __init__(
        self,
        journal: Journal,
        new_decoder: Callable[[], Worker],
        n_decoders: int,
        encoders: Sequence[Worker],
        spool: Path,
        frame_rate: float,
        on_done: Callable[[Job, str | None], None],
    ) -> None:
        self.counts = Counts()
        self._journal = journal
        self._new_decoder = new_decoder
        self._encoders = list(encoders)
        self._decoders = [new_decoder() for _ in range(n_decoders)]
        self._loading = set(range(len(self._encoders)))
        self._spool = spool
        self._on_done = on_done
        self._batch_frames = round(_BATCH_S * frame_rate)
        self._most_frames = round(_LOOK_AHEAD_S * frame_rate) * len(encoders)
        self._pool: list[_Waiting] = []  # sorted by length
        self._pool_frames = 0
        self._idle = list(range(n_decoders))  # decoders
        self._order = itertools.count()
        self._under_way: list[dict[Any, _Waiting]] = [{} for _ in encoders]
        self._busy_s = [0.0] * len(self._encoders)
        self._same_voice: dict[bytes, list[tuple[Job, _Waiting]]] = {}  # by content of a voice that is being encoded
        self._deaths = 0

    def run(self, jobs: Iterator[Job]) -> None:
        """Do all jobs.

        Raises:
            DataError: a process failed for a reason that is no clip's, or the disk is full.
        """
        try:
            upcoming = next(jobs, None)
            while True:
                while upcoming is not None and self._idle and self._has_room():
                    self._decode(self._idle.pop(), upcoming)
                    upcoming = next(jobs, None)
                decoding = len(self._idle) < len(self._decoders)
                for i in range(len(self._encoders)):
                    self._feed(i, more_comes=decoding or upcoming is not None)
                if upcoming is None and not decoding and not self._pool and not any(self._under_way):
                    return
                self._receive()
        finally:
            self.counts.encoding_s = time.monotonic() - (self.counts.ready_at or time.monotonic())
            close_all([*self._decoders, *self._encoders])

    def _has_room(self) -> bool:
        n_decoding = len(self._decoders) - len(self._idle)
        return len(self._pool) + n_decoding < _LOOK_AHEAD_CLIPS and self._pool_frames < self._most_frames

    def _decode(self, i: int, job: Job) -> None:
        decoder = self._decoders[i]
        stamp = FileStamp.of(job.path)  # before it is read: who changes it now is found out when the run goes on
        decoder.task = job, stamp
        waveform = self._spool / f"{next(self._order)}.f32"
        decoder.send(ClipTask(job.path, isinstance(job.key, str), job.max_samples, waveform))

    def _feed(self, i: int, *, more_comes: bool) -> None:
        """Give an encoder its next batch, if it needs one and there is one."""
        if i in self._loading or not self._pool:
            return
        frames = sum(waiting.n_frames for waiting in self._under_way[i].values())
        if frames > self._batch_frames / 2:
            return
        waits_for_more = more_comes and self._has_room() and self._pool_frames < self._batch_frames
        if waits_for_more and (frames or len(self._pool) < _FIRST_CLIPS):
            return
        batch = self._take_batch()
        self._under_way[i] |= {waiting.order: waiting for waiting in batch}
        self._encoders[i].send([EncodeTask(w.order, w.clip.waveform, w.n_frames) for w in batch])

    def _take_batch(self) -> list[_Waiting]:
        """Whoever waits longest, and those next to it in length, longest first."""
        middle = min(range(len(self._pool)), key=lambda i: self._pool[i].order)
        first, end, frames = middle, middle + 1, self._pool[middle].n_frames
        while frames < self._batch_frames and end - first < min(_BATCH_CLIPS, len(self._pool)):
            if first > 0 and (end == len(self._pool) or middle - first <= end - 1 - middle):
                first -= 1
                frames += self._pool[first].n_frames
            else:
                frames += self._pool[end].n_frames
                end += 1
        batch = self._pool[first:end]
        del self._pool[first:end]
        self._pool_frames -= frames
        return batch[::-1]

    def _receive(self) -> None:
        """Take what processes have sent; waits for at least one."""
        ready = wait([worker.connection for worker in (*self._decoders, *self._encoders)])
        for i, encoder in enumerate(self._encoders):
            if encoder.connection in ready:
                self._take_encoded(i)
        for i, decoder in enumerate(self._decoders):
            if decoder.connection in ready:
                self._take_decoded(i)

    def _take_decoded(self, i: int) -> None:
        decoder = self._decoders[i]
        try:
            answer = decoder.receive()
            self._deaths = 0
        except WorkerDied as death:
            self._deaths += 1
            if decoder.task is None or self._deaths > _MAX_DEATHS:
                raise DataError(f"a decoding process {death}; {GO_ON}") from None
            answer = f"{decoder.task[0].path}: the process that decoded it {death}"
            self._decoders[i] = self._new_decoder()
        job, stamp = decoder.task
        decoder.task = None
        self._idle.append(i)
        if isinstance(answer, Failure):
            raise DataError(f"{answer.sentence}; {GO_ON}")
        if isinstance(answer, str):
            self.counts.problems += 1
            self._finish(job, Entry(answer, stamp))
            return
        waiting = _Waiting(answer.n_frames, next(self._order), job, stamp, answer)
        if isinstance(job.key, str) and self._is_known_voice(waiting):
            return
        bisect.insort(self._pool, waiting, key=lambda w: (w.n_frames, w.order))
        self._pool_frames += waiting.n_frames

    def _is_known_voice(self, waiting: _Waiting) -> bool:
        """Whether another path has the same content; its codes serve both."""
        sha256 = waiting.clip.sha256
        if self._journal.voice(sha256) is not None:
            waiting.clip.waveform.unlink()
            self._finish(waiting.job, _entry(waiting, None))
            return True
        if sha256 in self._same_voice:
            waiting.clip.waveform.unlink()
            self._same_voice[sha256].append((waiting.job, waiting))
            return True
        self._same_voice[sha256] = []
        return False

    def _take_encoded(self, i: int) -> None:
        try:
            answer = self._encoders[i].receive()
        except WorkerDied as death:
            raise DataError(f"the encoding process {death}; {GO_ON}") from None
        if isinstance(answer, Failure):
            raise DataError(f"{answer.sentence}; {GO_ON}")
        if isinstance(answer, Ready):
            self._loading.discard(i)
            self.counts.ready_at = self.counts.ready_at or time.monotonic()
            return
        assert isinstance(answer, EncodedClip), answer
        waiting = self._under_way[i].pop(answer.key)
        self._busy_s[i] = answer.busy_s
        self.counts.busy_s = sum(self._busy_s)
        self.counts.encoded_frames += waiting.n_frames
        waiting.clip.waveform.unlink()
        self._finish(waiting.job, _entry(waiting, answer))
        for job, same in self._same_voice.pop(waiting.clip.sha256, ()):
            self._finish(job, _entry(same, None))

    def _finish(self, job: Job, entry: Entry) -> None:
        if isinstance(job.key, str):
            self._journal.add_reference(job.key, entry)
        else:
            self._journal.add_target(*job.key, entry)
        self.counts.clips += 1
        self._on_done(job, entry.problem)


def _entry(waiting: _Waiting, encoded: EncodedClip | None) -> Entry:
    codes = None if encoded is None else encoded.codes
    return Entry(None, waiting.stamp, waiting.clip.sha256, waiting.clip.clipped_share, codes)
