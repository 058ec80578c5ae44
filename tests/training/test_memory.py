"""What is estimated before a run, and what is chosen by it."""

import json
from dataclasses import replace

import pytest
from golden_data import GOLDEN
from train_invented import small_config

from sglang_moss.benchmarks.steps.training_shapes import CASES, write_shape
from sglang_moss.training.memory import estimate, settle_exchange
from sglang_moss.training.model import ModelShape

pytestmark = pytest.mark.wide

GB = 10**9


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> ModelShape:
    path = tmp_path_factory.mktemp("shape") / "model"
    write_shape(path, GOLDEN, CASES["full-1.7b"], None)
    return ModelShape.from_dict(json.loads((path / "config.json").read_text()))


def config_of(tmp_path, **compute):
    packing = {"rows": 16_384, "per_step": 8}
    return small_config(tmp_path, packing=packing, compute={"checkpointing": "selective", **compute})


def test_gpus_exchange_once_a_step_where_the_memory_is_there(shape, tmp_path):
    config = config_of(tmp_path)

    def chosen(there):
        return settle_exchange(config, shape, 2, 2, there).compute.exchange

    step = estimate(shape, config_of(tmp_path, exchange="step"), 2, 2).total
    pack = estimate(shape, config_of(tmp_path, exchange="pack"), 2, 2).total
    assert pack < step
    assert [chosen(n) for n in (int(step / 0.9) - 1, int(step / 0.9) + 2, None)] == ["pack", "step", "step"]
    assert settle_exchange(config_of(tmp_path, exchange="step"), shape, 2, 2, GB).compute.exchange == "step"


def test_whole_gradients_are_counted_where_a_gpu_has_several_packs_a_step(shape, tmp_path):
    once = config_of(tmp_path, exchange="step")
    alone = replace(once, packing=replace(once.packing, per_step=2))
    parameters = estimate(shape, alone, 1, 2).gradients // 4
    assert estimate(shape, once, 2, 2).gradients - estimate(shape, alone, 2, 2).gradients == 4 * parameters


def test_replicas_take_what_one_gpu_takes(shape, tmp_path):
    config = config_of(tmp_path, parallel="replicated")
    assert estimate(shape, config, 2, 2) == estimate(shape, config, 1, 2)
