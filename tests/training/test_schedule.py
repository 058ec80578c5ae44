"""Learning rates over a run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from sglang_moss.training.schedule import SCHEDULES, rate_share, shifted_rate_share

pytestmark = pytest.mark.wide


@pytest.mark.parametrize("n_warmup", [0, 1, 4])
@pytest.mark.parametrize(
    ("schedule", "make"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_shares_equal_transformers(schedule, make, n_warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = make(optimizer, n_warmup, 12)
    for step in range(12):
        assert rate_share(schedule, step, n_warmup, 12) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_a_constant_rate_warms_up_as_transformers():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_constant_schedule_with_warmup(optimizer, 3)
    for step in range(6):
        assert rate_share("constant", step, 3, 6) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


@given(st.sampled_from(SCHEDULES), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_every_step_learns_and_none_more_than_the_highest(schedule, n_steps, warmup, decay, lowest):
    n_warmup, n_decay = round(warmup * n_steps), round(decay * n_steps)
    shares = [
        shifted_rate_share(schedule, step, n_warmup, n_steps, n_decay=n_decay, lowest=lowest) for step in range(n_steps)
    ]
    assert all(0 < share <= 1 for share in shares)
    rising = shares[: n_warmup + 1]
    assert rising == sorted(rising)
    falling = shares[n_warmup:]
    assert falling == sorted(falling, reverse=True)


def test_wsd_is_level_and_then_falls():
    shares = [rate_share("wsd", step, 2, 10, n_decay=4, lowest=0.1) for step in range(11)]
    assert shares == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 0.775, 0.55, 0.325, 0.1])
