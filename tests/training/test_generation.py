"""Speech of the trainer's model: upstream's greedy rows, and what cut and silent ones give."""

import numpy as np
import pytest
import torch
from golden_data import GOLDEN, golden_arrays, golden_json

from sglang_moss.training.distributed import World
from sglang_moss.training.generation import Drawing, generate
from sglang_moss.training.golden.model_check import golden_model

pytestmark = pytest.mark.wide

ALONE = World(0, 1, torch.device("cpu"))
GREEDY = Drawing(temperature=0.0, repetition_penalty=1.0)
MODEL = golden_model(GOLDEN / "ttsd", "sdpa")
ARRAYS = golden_arrays("lm/generate")
# Continuations begin inside the assistant's turn, which a prompt of training never does.
CASES = [
    case
    for case in golden_json("lm/generate")["cases"]
    if case["key"].startswith("natural") and case["mode"] != "continuation" and len(case["segments"]) == 1
][:4]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_greedy_frames_equal_upstreams(case):
    prompt = ARRAYS[f"{case['key']}.input_ids"].astype(np.int32)
    frames = generate(MODEL, prompt, GREEDY, 200, ALONE)
    np.testing.assert_array_equal(frames, ARRAYS[f"{case['key']}.segment.0"])


def test_a_cut_run_has_the_first_frames():
    prompt = ARRAYS[f"{CASES[0]['key']}.input_ids"].astype(np.int32)
    whole, cut = (generate(MODEL, prompt, GREEDY, n, ALONE) for n in (200, 3))
    assert 0 < len(cut) <= 3
    np.testing.assert_array_equal(cut, whole[: len(cut)])


def test_a_seed_decides_what_is_drawn():
    prompt = ARRAYS[f"{CASES[0]['key']}.input_ids"].astype(np.int32)
    runs = [generate(MODEL, prompt, Drawing(seed=seed), 6, ALONE).tobytes() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
