"""The plan of a run: what holds for any lengths, and what it must not depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.training.planning import Planner, best_fit, deal

pytestmark = pytest.mark.wide

LENGTHS = st.lists(st.integers(1, 120), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**31)


def planner(lengths, seed=0, pack_rows=100, packs_per_step=3, **settings) -> Planner:
    return Planner(np.array(lengths), pack_rows, packs_per_step, seed, **settings)


@given(LENGTHS, SEEDS, st.integers(1, 70), st.integers(0, 3))
def test_every_example_is_in_one_pack_of_an_epoch(lengths, seed, window, epoch):
    plan = planner(lengths, seed, window=window)
    packs = plan.packs(epoch)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    first = plan.n_steps(epoch)
    steps = [plan.step(first + i) for i in range(plan.steps_in(epoch))]
    assert sorted(pack for step in steps for pack in step) == sorted(packs)
    assert all(1 <= len(step) <= 3 for step in steps)


@given(LENGTHS, SEEDS, st.integers(1, 9))
def test_steps_are_full_but_for_two_that_are_half_full(lengths, seed, packs_per_step):
    plan = planner(lengths, seed, packs_per_step=packs_per_step)
    sizes = [len(plan.step(step)) for step in range(plan.steps_in(0))]
    assert len(sizes) == -(-len(plan.packs(0)) // packs_per_step)
    assert all(size == packs_per_step for size in sizes[:-2])
    if len(sizes) > 1:
        assert all(packs_per_step >= size >= packs_per_step - packs_per_step // 2 for size in sizes)


@given(LENGTHS, SEEDS, st.sampled_from([2, 4, 8]))
def test_no_order_of_packs_lets_ranks_idle_less(lengths, seed, n_ranks):
    plan = planner(lengths, seed, packs_per_step=8)
    steps = [plan.step(step) for step in range(plan.steps_in(0))]
    rounds = sum(len(deal(step, 0, n_ranks)) for step in steps)
    assert rounds == -(-len(plan.packs(0)) // n_ranks)


@given(LENGTHS, SEEDS)
def test_a_pack_is_full_at_most_unless_it_is_one_long_example(lengths, seed):
    plan = planner(lengths, seed)
    for pack in plan.packs(0):
        assert plan.lengths[list(pack)].sum() <= 100 or len(pack) == 1


@given(LENGTHS)
def test_no_two_packs_of_a_window_fit_into_one(lengths):
    array = np.array(lengths)
    sums = sorted(array[list(pack)].sum() for pack in best_fit(range(len(lengths)), array, 100))
    assert sum(sums[:2]) > 100 or len(sums) == 1


@given(LENGTHS, SEEDS, st.integers(0, 5))
def test_a_step_is_a_function_of_seed_and_step(lengths, seed, epochs):
    whole, alone = planner(lengths, seed), planner(lengths, seed)
    last = whole.n_steps(epochs + 1) - 1
    steps = [whole.step(step) for step in range(last + 1)]
    assert alone.step(last) == steps[last]
    assert whole.step(0) == steps[0]
    assert whole.place(last) == (epochs, whole.steps_in(epochs) - 1)


@given(LENGTHS, SEEDS, st.integers(1, 7))
def test_ranks_share_a_step(lengths, seed, n_ranks):
    step = planner(lengths, seed, packs_per_step=9).step(0)
    dealt = [deal(step, rank, n_ranks) for rank in range(n_ranks)]
    assert len({len(packs) for packs in dealt}) == 1
    assert sorted(pack for packs in dealt for pack in packs if pack is not None) == sorted(step)


def test_epochs_and_seeds_have_their_own_order():
    lengths = list(range(1, 60))
    orders = {tuple(planner(lengths, seed).packs(epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert [*planner(lengths, 1, shuffles=False).packs(0)] == [*planner(lengths, 2, shuffles=False).packs(3)]


def test_ranks_bear_alike():
    rng = np.random.default_rng(0)
    lengths = np.minimum(np.exp(rng.normal(6.3, 0.9, 20_000)), 8000).astype(int)
    plan = planner(lengths, pack_rows=16384, packs_per_step=64)
    step = plan.step(0)

    def spread(dealt):
        costs = [sum(plan.cost(pack) for pack in packs if pack) for packs in dealt]
        return max(costs) / min(costs)

    assert spread([deal(step, rank, 8) for rank in range(8)]) < 1.25
    assert spread([step[rank::8] for rank in range(8)]) > 1.25
    assert plan.fill(0) > 0.99
