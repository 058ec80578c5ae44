"""Rows of several ranks: what goes on is the first one's, in the slots too, and what differed is counted."""

from typing import Any

import pytest
import torch
from speech_requests import special_tokens_of
from torch import Tensor, nn

from sglang_moss.parallel import SharedRows, rows_apart
from sglang_moss.row_sampler import DrawnRows, RowsApart
from sglang_moss.step.eager import NOT_FINITE
from sglang_moss.step.slots import PADDING_SLOT, SlotState

pytestmark = pytest.mark.wide

TOKENS = special_tokens_of(3, 9)
DEVICE = torch.device("cpu")


class Group:
    """A rank of SGLang's group that is sent `rows` by the first one."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def broadcast(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(self._rows)


def test_rows_and_slots_are_those_of_the_first_rank():
    rows = torch.tensor([[7, 1, 2, 3], [3, 4, 5, 6]])
    state = SlotState(4, 9, TOKENS, DEVICE)
    slots = torch.tensor([2, 3])
    shared = SharedRows(Group(rows), counts_on=None)
    drawn = torch.tensor([[7, 1, 2, 8], [2, 0, 0, 0]])
    assert shared.share(drawn, slots, state) is drawn
    assert drawn.tolist() == rows.tolist()
    assert state.codes[slots].tolist() == rows[:, 1:].tolist()
    assert state.codes[1].tolist() == [TOKENS.pad_code] * 3, "a slot of nobody's"


def test_a_row_that_is_not_finite_leaves_codes_that_can_be_looked_up():
    state = SlotState(2, 9, TOKENS, DEVICE)
    rows = torch.tensor([[7, NOT_FINITE, 2, 3]])
    SharedRows(Group(rows), None).share(rows.clone(), torch.tensor([1]), state)
    assert state.codes[1].tolist() == [0, 2, 3]


def test_rows_that_differ_are_counted_once_each_and_padding_never():
    rows = torch.tensor([[7, 1, 2, 3], [3, 4, 5, 6], [3, 4, 5, 6]])
    state = SlotState(4, 9, TOKENS, DEVICE)
    shared = SharedRows(Group(rows), counts_on=DEVICE)
    slots = torch.tensor([1, 2, PADDING_SLOT])
    shared.share(torch.tensor([[7, 1, 2, 3], [2, 0, 5, 6], [0, 0, 0, 0]]), slots, state)
    shared.share(rows.clone(), slots, state)
    assert shared.n_apart is not None
    assert shared.n_apart.tolist() == [1]


def test_a_count_reaches_the_host_with_the_rows_of_its_step():
    told: list[int] = []
    count = torch.tensor([3])
    drawn = DrawnRows(torch.zeros(0, 4), lambda *_: None, RowsApart(count.clone(), told.append))
    accepted = drawn.copy_to_host(torch.clone)
    count += 1  # the next step
    batch: Any = type("Batch", (), {"reqs": []})
    accepted.consume(batch, [])
    assert told == [3]


def test_nothing_is_counted_unless_asked_for():
    assert rows_apart(None, with_metrics=False) is None
    assert rows_apart(SharedRows(Group(torch.zeros(1, 4)), None), with_metrics=False) is None


def test_a_change_is_told_once(caplog):
    apart = rows_apart(SharedRows(Group(torch.zeros(1, 4)), DEVICE), with_metrics=False)
    assert apart is not None
    for n in (0, 0, 2, 2, 5):
        apart.show(n)
    assert [record.args[0] for record in caplog.records] == [2, 5]


def test_text_tables_are_whole_on_every_rank():
    from sglang_moss.parallel import replicate_text_tables

    model = nn.Module()
    model.config = type("Config", (), {"vocab_size": 10, "hidden_size": 4})()
    model.model = nn.Module()
    replicate_text_tables(model)
    embeddings: Any = model.model.embed_tokens
    head: Any = model.lm_head
    assert len(embeddings.weight) >= 10
    assert len(head.weight) >= 10
