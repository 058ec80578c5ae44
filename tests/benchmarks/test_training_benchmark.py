"""What fine-tuning is measured on: invented dialogues, and micro-batches that are padded in place of packed."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_data import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from speech_examples import golden_tokens
from train_invented import small_config

from sglang_moss.benchmarks import training
from sglang_moss.benchmarks.steps.dialogues import Dialogues, Lengths
from sglang_moss.benchmarks.steps.padded_batches import BatchedPlanner, PaddedDataset, PaddedPlanner
from sglang_moss.benchmarks.steps.timed_steps import computed_size
from sglang_moss.benchmarks.steps.training_shapes import CASES, write_shape
from sglang_moss.benchmarks.training_table import ratios
from sglang_moss.training.flops import model_parameters
from sglang_moss.training.golden.model_check import golden_model
from sglang_moss.training.loading import PackOrder
from sglang_moss.training.loss import channel_weights, loss_scales
from sglang_moss.training.model import ModelShape, SpeechModel
from sglang_moss.training.rows import label_counts
from sglang_moss.training.run_plan import plan_run

pytestmark = pytest.mark.wide

DIALOGUES = Dialogues(12, *golden_tokens(), Lengths(median_s=1.0, longest_s=4.0))


def test_padded_and_packed_micro_batches_train_alike(tmp_path):
    plan = plan_run(small_config(tmp_path, packing={"pad_to": 1}), DIALOGUES)
    packed = plan.packs_of(plan.training)
    padded = PaddedDataset(**training.vars_of(packed))
    chosen = (0, 3, 5)
    n_vq = plan.shape.tokens.n_vq
    counts = label_counts(int(DIALOGUES.n_frames[list(chosen)].sum()), 3, n_vq)
    order = PackOrder(chosen, loss_scales(channel_weights((1, 32), n_vq), counts))
    assert len(padded[order].rows) == 3 * plan.lengths[list(chosen)].max() > len(packed[order].rows)
    model = golden_model(GOLDEN / "ttsd", "sdpa")
    losses = [model(dataset[order]) for dataset in (packed, padded)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-4)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=50), st.integers(0, 99))
def test_padded_micro_batches_hold_every_example_and_no_more_rows_than_a_pack(lengths, seed):
    planner = PaddedPlanner(np.array(lengths), 200, 4, seed)
    packs = planner.packs(0)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(len(pack) * max(lengths[i] for i in pack) <= 200 for pack in packs)
    assert 0 < planner.fill(0) <= 1


@given(st.lists(st.integers(1, 90), min_size=20, max_size=60), st.integers(0, 99))
def test_batches_have_as_many_examples_and_the_rows_of_a_pack_in_the_mean(lengths, seed):
    planner = BatchedPlanner(np.array(lengths), 400, 4, seed)
    packs = planner.packs(0)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert len(set(map(len, packs[:-1]))) <= 1
    assert np.mean([planner.padded(pack).sum() for pack in packs]) <= 400


@pytest.mark.parametrize("kind", [None, PaddedPlanner, BatchedPlanner])
def test_the_rows_that_are_counted_are_those_that_are_computed(kind, tmp_path):
    plan = plan_run(small_config(tmp_path, packing={"pad_to": 64}), DIALOGUES)
    dataset = plan.packs_of(plan.training)
    if kind is not None:
        plan = replace(plan, planner=kind(plan.lengths, 512, 4, 0))
        dataset = PaddedDataset(**training.vars_of(dataset))
    chosen = plan.planner.step(0)
    packs = [dataset[order] for order in plan.orders(chosen)]
    assert computed_size(plan, chosen).rows == sum(len(pack.rows) for pack in packs)
    if kind is not None:  # filler of a pack is cut into short segments, which count for nothing
        squares = sum(int((pack.cu_seqlens.diff() ** 2).sum()) for pack in packs)
        assert computed_size(plan, chosen).squares == squares


def test_a_table_says_what_packing_and_gpus_bring():
    one = {"case": "x", "layers": 2, "mode": "packed", "n_gpus": 1, "rows_per_s": 10.0}
    padded = {**one, "mode": "padded", "rows_per_s": 5.0, "fill": 0.4, "arithmetic_fill": 0.5}
    packed = {**one, "fill": 0.9, "arithmetic_fill": 0.9}
    two = {**packed, "n_gpus": 2, "rows_per_s": 19.0, "exchange": "step"}
    assert list(ratios([packed, padded, two])) == [
        "x: packed is 2.00 times padded; by rows computed 2.25, by arithmetic 1.80",
        "x, 2 layers, exchange step: 2 GPUs are 1.90 times 1",
    ]


@pytest.mark.parametrize("name", ["tiny", "full-1.7b", "lora-8b"])
def test_a_shape_has_the_parameters_that_are_counted(name, tmp_path):
    write_shape(tmp_path / "model", GOLDEN, CASES[name], n_layers=2)
    shape = ModelShape.from_dict(json.loads((tmp_path / "model" / "config.json").read_text()))
    with torch.device("meta"):
        model = SpeechModel(shape)
    assert sum(p.numel() for p in model.parameters()) == model_parameters(shape)


@pytest.mark.slow
def test_the_benchmark_runs(monkeypatch, tmp_path):
    out = tmp_path / "training.jsonl"
    words = f"--case tiny --steps 1 --warmup 1 --workers 0 --per-step 1 --dialogues 24 --out {out}".split()
    modes = ["packed", "padded", "batched", "upstream"]
    monkeypatch.setattr(sys, "argv", ["training", *words, "--golden", str(GOLDEN), "--modes", *modes])
    training.main()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["mode"] for line in lines] == modes
    assert all(line["rows_per_s"] > 0 for line in lines)
    assert all(0 < line["fill"] <= 1 and 0 < line["arithmetic_fill"] <= 1 for line in lines[:3])
