"""Rows and labels: parity with upstream's dataset, and what the two layouts share."""

import json

import numpy as np
import pytest
from golden_data import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from sglang_moss.delay.layout import remove_delay
from sglang_moss.request.prompt import build_prompt, choose_mode
from sglang_moss.request.script import Script
from sglang_moss.request.template import TTS, TTSD
from sglang_moss.training.example import Example
from sglang_moss.training.golden.records import GoldenRecords
from sglang_moss.training.rows import IGNORED, label_counts, labels_of, n_input_rows, prompt_rows, target_rows

pytestmark = pytest.mark.wide

FINETUNE = GOLDEN / "finetune"
RECORDS = GoldenRecords(FINETUNE, GOLDEN / "ttsd")
TOKENIZER, TOKENS = RECORDS.tokenizer, RECORDS.tokens
STORED = np.load(FINETUNE / "rows.npz")
CASES = json.loads((FINETUNE / "rows.json").read_text())


def random_codes(n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TOKENS.pad_code, (n_frames, TOKENS.n_vq)).astype(np.uint16)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_rows_and_labels_equal_upstreams(case):
    key, made = case["key"], RECORDS.rows(case["key"])
    np.testing.assert_array_equal(made.rows, STORED[f"{key}.rows"])
    np.testing.assert_array_equal(made.labels, STORED[f"{key}.labels"])
    assert label_counts(case["frames"], 1, TOKENS.n_vq).tolist() == case["label_counts"]
    assert (made.labels != IGNORED).sum(0).tolist() == case["label_counts"]
    assert n_input_rows(np.array(made.n_prompt_rows), np.array(case["frames"]), TOKENS.n_vq) == case["input_rows"]


@given(st.integers(1, 5), st.integers(0, 99))
def test_layouts_differ_in_the_text_id_of_one_row(n_frames, seed):
    codes = random_codes(n_frames, seed)
    published = target_rows(codes, TOKENIZER, TOKENS)
    served = target_rows(codes, TOKENIZER, TOKENS, "served")
    assert np.argwhere(published != served).tolist() == [[n_frames, 0]]  # the row of the last code 0
    assert (served[:, 0] == TOKENS.gen_slot).sum() == n_frames - 1
    assert (served[:, 0] == TOKENS.delay_slot).sum() == TOKENS.n_vq
    np.testing.assert_array_equal(remove_delay(served[1:-3, 1:]), codes)


@pytest.mark.parametrize("n_references", [None, 0, 2])
def test_a_prompt_equals_the_one_of_a_request(n_references):
    clips = None if n_references is None else [random_codes(3 + k, k) for k in range(n_references)]
    script = Script("[S1] Tea? [S3] No, {reference}.", instruction="calm", ambient_sound="rain")
    mode = choose_mode("voice_clone" if clips else None, len(clips or ()))
    asked = build_prompt(script, clips, None, TOKENIZER, TOKENS, mode).rows
    fields = {"text": script.text, "instruction": "calm", "ambient_sound": "rain"}
    example = Example("x", fields, random_codes(1), None if clips is None else tuple(clips))
    np.testing.assert_array_equal(prompt_rows(example, TOKENIZER, TOKENS, TTSD), asked)


@given(st.integers(1, 4), st.integers(1, 6))
def test_no_code_of_a_reference_is_learnt(n_reference, n_frames):
    example = Example("x", {"text": "a"}, random_codes(n_frames), (random_codes(n_reference, 1),))
    prompt = prompt_rows(example, TOKENIZER, TOKENS, TTS)
    rows = np.concatenate([prompt, target_rows(example.codes, TOKENIZER, TOKENS)])
    labels = labels_of(rows, len(prompt), TOKENS.pad_code)
    assert (labels[: len(prompt) - 1] == IGNORED).all()
    assert labels[len(prompt) - 1, 0] == TOKENS.audio_start
    assert (labels != IGNORED).sum(0).tolist() == label_counts(n_frames, 1, TOKENS.n_vq).tolist()
