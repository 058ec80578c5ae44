"""What training from nothing needs: hidden codes, an order that is kept, an end by the clock."""

from dataclasses import replace

import numpy as np
import pytest
from golden_data import GOLDEN
from speech_examples import InventedSpeech
from train_invented import small_config

from sglang_moss.training.clock import Clock
from sglang_moss.training.distributed import World
from sglang_moss.training.errors import TrainingError
from sglang_moss.training.loading import PackOrder
from sglang_moss.training.planning import Planner
from sglang_moss.training.rows import IGNORED, hide_codes
from sglang_moss.training.run import finetune
from sglang_moss.training.run_plan import plan_run

pytestmark = pytest.mark.wide

PAD = 99


def test_hidden_rows_are_whole_and_their_text_stays():
    rows = np.arange(1000 * 5).reshape(1000, 5) % PAD
    shown = rows.copy()
    hide_codes(shown, PAD, (0.3, 0.0), np.random.default_rng(0))
    hidden = (shown[:, 1:] == PAD).all(1)
    assert 0.25 < hidden.mean() < 0.35
    assert np.array_equal(shown[:, 0], rows[:, 0])
    assert np.array_equal(shown[~hidden], rows[~hidden])


def test_single_codes_are_hidden_in_the_other_rows():
    shown = np.zeros((2000, 5), np.int32)
    hide_codes(shown, PAD, (0.0, 0.2), np.random.default_rng(0))
    assert 0.17 < (shown[:, 1:] == PAD).mean() < 0.23


def test_packs_ask_for_what_they_hide(tmp_path):
    plan = plan_run(small_config(tmp_path, inputs={"hidden_rows": 0.5}), InventedSpeech(8))
    packs = plan.packs_of(plan.training)
    pack = plan.planner.packs(0)[0]
    order, again = plan.orders([pack], step=3)[0], plan.orders([pack], step=4)[0]
    hidden, shown = packs[order], packs[PackOrder(pack, order.scales)]
    assert np.array_equal(hidden.labels, shown.labels)
    assert not np.array_equal(hidden.rows, shown.rows)
    assert np.array_equal(hidden.rows[:, 0], shown.rows[:, 0])
    assert np.array_equal(packs[order].rows, hidden.rows)
    assert not np.array_equal(packs[again].rows, hidden.rows)


class ShownOtherwise(InventedSpeech):
    """Every second example shows zeros in its first codebook."""

    def __getitem__(self, i):
        example = super().__getitem__(i)
        if i % 2:
            return example
        shown = example.codes.copy()
        shown[:, 0] = 0
        return replace(example, shown=shown)


def test_what_is_shown_in_place_of_a_target_is_read_and_not_learnt(tmp_path):
    plain, other = InventedSpeech(9), ShownOtherwise(9)
    plan, plan_shown = (plan_run(small_config(tmp_path), examples) for examples in (plain, other))
    packs, packs_shown = plan.packs_of(plan.training), plan_shown.packs_of(plan_shown.training)
    for i in range(len(plan.training)):
        rows, labels = packs.rows_of(i)
        rows_shown, labels_shown = packs_shown.rows_of(i)
        assert np.array_equal(labels, labels_shown)
        same = plan_shown.training[i].shown is None
        assert np.array_equal(rows, rows_shown) == same
        if not same:
            target = np.flatnonzero((labels != IGNORED).any(1))[0] + 1
            is_code = rows[target:, 1] != plan.shape.tokens.pad_code
            assert (rows_shown[target:, 1][is_code] == 0).all()
            assert np.array_equal(np.delete(rows, 1, 1), np.delete(rows_shown, 1, 1))


def test_what_is_shown_has_the_shape_of_what_is_learnt(tmp_path):
    class Longer(InventedSpeech):
        def __getitem__(self, i):
            example = super().__getitem__(i)
            return replace(example, shown=np.concatenate([example.codes, example.codes]))

    plan = plan_run(small_config(tmp_path), Longer(2))
    with pytest.raises(TrainingError, match=r"example .* shows \(\d+, \d+\) codes in place of \(\d+, \d+\)"):
        plan.packs_of(plan.training).rows_of(0)


def test_ordered_packs_follow_the_dataset_window_by_window():
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    packs = Planner(lengths, 64, 2, 7, window=50, ordered=True).packs(0)
    windows = [{i // 50 for i in pack} for pack in packs]
    assert all(len(window) == 1 for window in windows)
    assert [min(window) for window in windows] == sorted(min(window) for window in windows)
    assert sorted(i for pack in packs for i in pack) == list(range(200))


def test_clock_says_how_many_steps_fit(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock, n_steps = Clock(100.0, World(0, 1, None)), 10_000
    for step in range(1, 2000):
        now += 1.0 if step <= 20 else 0.1  # the first compile
        n_steps = clock.n_steps(step, n_steps, 10_000)
        if step >= n_steps:
            break
    assert now == pytest.approx(100, abs=1.5)
    assert clock.n_steps(step + 50, n_steps, 10_000) >= step


def test_run_of_no_time_ends_and_is_exported(tmp_path):
    changes = {"seconds": 0.001, "steps": 500, "checkpoints": {"every": 10, "export": True}}
    outcome = finetune(small_config(tmp_path / "run", model=str(GOLDEN / "ttsd"), **changes), InventedSpeech(8))
    assert outcome is not None
    assert outcome.n_steps < 100
    assert (outcome.model / "config.json").is_file()
