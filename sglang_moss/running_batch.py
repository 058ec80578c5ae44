"""SGLang's running batch, of which a decoding step may take a part: those in need first (`decode/need.py`).

SGLang decodes whatever is in its running batch. A request that is left out of a step loses nothing but time: its KV
cache, its slot and its last token, which SGLang keeps by slot, stay as they are, and no row of another request depends
on who shares its step. So a step that is to be smaller gets a copy of the batch with fewer requests, while the running
batch keeps them all, for admission, aborts and counts. Nobody is retracted for it.
"""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch

from sglang_moss.decode.need import Need, need_of, sitting_out
from sglang_moss.multimodal_item import progress_of

Update = Callable[[Any, ScheduleBatch], ScheduleBatch | None]  # SGLang's own: prepares a decoding step, or says none


class Turns:
    """Decides who has a row in the next step.

    Args:
        most: requests of a step while somebody is in need.
        frame_seconds: length of a frame.
        labels: of the gauge of rows that were put off; None: there is none.
    """

    def __init__(
        self,
        most: int,
        frame_seconds: float,
        labels: dict[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._frame_seconds = frame_seconds
        self._clock = clock
        self.n_put_off = 0  # rows, of requests that sat a step out
        self._gauge = None if labels is None else _gauge(labels)

    def update(self, original: Update, scheduler: Any, batch: ScheduleBatch) -> ScheduleBatch | None:
        """In the place of SGLang's `update_running_batch`; what it returns is decoded."""
        if len(batch.reqs) <= self._most or not _can_be_parted(batch):
            return original(scheduler, batch)
        out = sitting_out(self._needs(batch.reqs), self._most)
        if not out:
            return original(scheduler, batch)
        part = _part_of(batch, out)
        if not part.check_decode_mem():
            return original(scheduler, batch)  # SGLang retracts some, and all are to be looked at for that
        step = original(scheduler, part)
        _bring_up_to(batch, part, out, has_step=step is not None and not step.is_empty())
        self._count(len(out))
        return step

    def _needs(self, reqs: Sequence[Req]) -> list[Need | None]:
        now = self._clock()
        return [self._need(req, now) for req in reqs]

    def _need(self, req: Req, now: float) -> Need | None:
        progress = progress_of(req)
        if progress is None or isinstance(req.to_finish, FINISH_ABORT):
            return None  # an abort ends with the next row
        return need_of(progress, bool(req.stream), now, self._frame_seconds)

    def _count(self, n: int) -> None:
        self.n_put_off += n
        if self._gauge is not None:
            self._gauge.set(self.n_put_off)


def _can_be_parted(batch: ScheduleBatch) -> bool:
    """Whether all that a step needs of it is kept by request: not right after a prefill that made the batch."""
    return (
        batch.forward_mode is not None
        and batch.forward_mode.is_decode()
        and batch.input_ids is None  # else the last tokens are here, and not where SGLang keeps them by slot
        and batch.seq_lens_cpu is not None
        and not batch.sampling_info.penalizer_orchestrator.is_required
    )


def _part_of(batch: ScheduleBatch, out: set[int]) -> ScheduleBatch:
    """A batch of its own without the requests at `out`; what `batch` holds is left as it is."""
    part = copy.copy(batch)
    part.sampling_info = copy.copy(batch.sampling_info)
    part.filter_batch(keep_indices=[i for i in range(len(batch.reqs)) if i not in out])
    return part


def _bring_up_to(batch: ScheduleBatch, part: ScheduleBatch, out: set[int], has_step: bool) -> None:
    """Let the whole batch have what SGLang has done to its part: longer sequences, and requests that it took out."""
    kept = set(map(id, part.reqs))
    runs = [id(req) in kept for req in batch.reqs]
    if has_step:
        more = torch.tensor(runs, dtype=torch.int64)
        assert batch.seq_lens_cpu is not None
        batch.seq_lens_cpu = batch.seq_lens_cpu + more
        on_device = more.pin_memory() if batch.seq_lens.is_cuda else more
        on_device = on_device.to(batch.seq_lens.device, non_blocking=True)
        batch.seq_lens = batch.seq_lens + on_device.to(batch.seq_lens.dtype)
        batch.orig_seq_lens = batch.orig_seq_lens + on_device.to(batch.orig_seq_lens.dtype)
        emptied: Any = None  # as SGLang leaves them, whatever it says of their types
        batch.seq_lens_sum = batch.out_cache_loc = emptied
    stay = [i for i, runs_on in enumerate(runs) if runs_on or i in out]
    if len(stay) < len(batch.reqs):
        batch.filter_batch(keep_indices=stay)
        batch.batch_is_full = False


def _gauge(labels: dict[str, str]) -> Any:
    from prometheus_client import Gauge  # reads where SGLang collects when it is imported, which is set by now

    meaning = "Rows that requests were made to wait for, while others were in need"
    gauge = Gauge("moss_ttsd:rows_put_off", meaning, list(labels), multiprocess_mode="mostrecent").labels(**labels)
    gauge.set(0)
    return gauge
