"""Steps that leave requests out of SGLang's running batch: who is in one, and what the batch is afterwards."""

from array import array
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
from sglang.srt.sampling.sampling_params import SamplingParams
from speech_requests import special_tokens_of, speech_request

from sglang_moss.running_batch import Turns

pytestmark = pytest.mark.wide

NOW = 100.0
AHEAD, DRY = NOW + 9.0, NOW + 0.5


def request(rid: str, heard_until: float | None, stream: bool = True) -> Req:
    req: Any = Req(rid, "", array("q", [0]), SamplingParams())
    req.stream = stream
    req.speech = speech_request(special_tokens_of(3, 9))
    req.speech.began, req.speech.heard_until = NOW - 1.0, heard_until
    return req


def running(reqs: Sequence[Req], fits: bool = True) -> ScheduleBatch:
    """A batch that has been decoded before: request i is in slot 10 + i, with 100 + i rows."""
    n = len(reqs)
    idle: Any = SimpleNamespace(is_required=False, filter=lambda _indices: None)
    info: Any = SamplingBatchInfo(
        temperatures=torch.ones(n, 1),
        top_ps=torch.ones(n),
        top_ks=torch.ones(n),
        min_ps=torch.zeros(n),
        is_all_greedy=True,
        is_any_greedy=True,
        need_top_p_sampling=False,
        need_top_k_sampling=False,
        need_min_p_sampling=False,
        vocab_size=9,
        penalizer_orchestrator=idle,
    )
    lengths = torch.arange(100, 100 + n)
    batch: Any = ScheduleBatch(
        reqs=list(reqs),
        model_config=SimpleNamespace(is_encoder_decoder=False),  # type: ignore[arg-type]
        forward_mode=ForwardMode.DECODE,
        req_pool_indices=torch.arange(10, 10 + n),
        req_pool_indices_cpu=torch.arange(10, 10 + n),
        seq_lens=lengths,
        seq_lens_cpu=lengths.clone(),
        orig_seq_lens=lengths.to(torch.int32),
        sampling_info=info,
        device="cpu",
        batch_is_full=True,
    )
    batch.check_decode_mem = lambda: fits
    return batch


def stepping(steps: list[list[str]], takes_out: str | None = None) -> Callable[[Any, ScheduleBatch], ScheduleBatch]:
    """SGLang's own method, as far as a batch can tell."""

    def update(_scheduler: Any, batch: ScheduleBatch) -> ScheduleBatch:
        batch.filter_batch(reqs_to_exclude=[req for req in batch.reqs if req.rid == takes_out])
        steps.append([req.rid for req in batch.reqs])
        if batch.reqs:
            batch.seq_lens = batch.seq_lens + 1
        return batch

    return update


def turns(most: int) -> Turns:
    return Turns(most, 0.08, clock=lambda: NOW)


def state(batch: ScheduleBatch) -> list[tuple[str, int, int, int, int]]:
    """Of each request: its id, slot, and rows by three counts."""
    assert batch.seq_lens_cpu is not None
    columns = (batch.req_pool_indices, batch.seq_lens, batch.seq_lens_cpu, batch.orig_seq_lens)
    assert len(batch.sampling_info.temperatures) == len(batch.reqs)
    return [(req.rid, *found) for req, *found in zip(batch.reqs, *(column.tolist() for column in columns), strict=True)]


def test_those_who_can_wait_sit_out_and_the_running_batch_keeps_them():
    batch = running([request("a", AHEAD), request("b", None), request("c", AHEAD + 1), request("d", DRY)])
    steps: list[list[str]] = []
    policy = turns(most=3)
    step = policy.update(stepping(steps), None, batch)
    assert step is not None
    assert step is not batch
    assert steps == [["a", "b", "d"]]
    assert (step.req_pool_indices.tolist(), step.seq_lens.tolist()) == ([10, 11, 13], [101, 102, 104])
    assert state(batch) == [
        ("a", 10, 101, 101, 101),
        ("b", 11, 102, 102, 102),
        ("c", 12, 102, 102, 102),
        ("d", 13, 104, 104, 104),
    ]
    assert (batch.orig_seq_lens.dtype, batch.batch_is_full, policy.n_put_off) == (torch.int32, True, 1)


@pytest.mark.parametrize(
    ("most", "mode", "input_ids"),
    [(4, ForwardMode.DECODE, None), (1, ForwardMode.EXTEND, None), (1, ForwardMode.DECODE, torch.zeros(4))],
)
def test_a_batch_is_whole_while_there_is_room_and_where_it_cannot_be_parted(
    most: int, mode: ForwardMode, input_ids: Any
):
    batch = running([request("a", AHEAD), request("b", None), request("c", AHEAD), request("d", AHEAD)])
    batch.forward_mode, batch.input_ids = mode, input_ids
    policy, seen = turns(most), []
    assert policy.update(lambda _, given: seen.append(given), None, batch) is None
    assert seen == [batch]
    assert policy.n_put_off == 0


def test_where_the_next_rows_do_not_fit_sglang_sees_all_of_it():
    batch = running([request("a", AHEAD), request("b", None)], fits=False)
    steps: list[list[str]] = []
    assert turns(most=1).update(stepping(steps), None, batch) is batch
    assert steps == [["a", "b"]]


@pytest.mark.parametrize(("taken", "left"), [("b", "acd"), ("d", "abc")])
def test_whom_sglang_takes_out_of_a_step_is_out_of_the_running_batch(taken: str, left: str):
    batch = running([request("a", AHEAD), request("b", None), request("c", AHEAD + 1), request("d", DRY)])
    turns(most=2).update(stepping([], takes_out=taken), None, batch)
    assert [rid for rid, *_ in state(batch)] == list(left)
    assert [rows for _, _, rows, *_ in state(batch)] == [100 + "abcd".index(r) + (r in "bd") for r in left]
    assert not batch.batch_is_full


def test_a_step_that_comes_to_nothing_changes_no_lengths():
    batch = running([request("a", AHEAD), request("b", None)])
    step = turns(most=1).update(stepping([], takes_out="b"), None, batch)
    assert step is not None
    assert step.is_empty()
    assert state(batch) == [("a", 10, 100, 100, 100)]


def test_what_is_aborted_or_carries_no_speech_runs():
    aborted, health = request("aborted", AHEAD), request("health", AHEAD)
    aborted.to_finish = FINISH_ABORT("gone")
    del health.speech  # type: ignore[attr-defined]
    steps: list[list[str]] = []
    batch = running([aborted, request("ahead", AHEAD), health, request("new", None), request("whole", None, False)])
    turns(most=1).update(stepping(steps), None, batch)
    assert steps == [["aborted", "health", "new"]]
