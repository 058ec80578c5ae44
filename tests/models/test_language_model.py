"""The served language model against the reference's logits and greedy generations, on the real engine."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN, golden_arrays
from warm_engine import generated
from warm_start import warm

from sglang_moss.benchmarks.reference.golden_cases import GoldenCases, GreedyCase
from sglang_moss.benchmarks.reference.rows_engine import RowsAnswer

pytestmark = pytest.mark.server

# Measured float32 noise of the reference is 1e-5 on logits of standard deviation 2.4; embeddings are single sums.
TOLERANCES = {"embeddings": 1e-6, "hidden": 1e-4, "text_logits": 1e-4, "audio_logits": 1e-4}
REFERENCE_NAMES = {"embeddings": "input_embeddings", "hidden": "last_hidden_state"}
GREEDY_CASES = GoldenCases(GOLDEN).greedy()


def test_teacher_forced_embeddings_hidden_states_and_logits_equal_the_reference(fused_path: Path, tmp_path: Path):
    rows = GOLDEN / "cases" / "lm" / "teacher_forced.npz"
    out = tmp_path / "out.npz"
    command = warm("-m", "sglang_moss.benchmarks.forced_logits", str(fused_path), str(rows), str(out))
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    expected = golden_arrays("lm/teacher_forced")
    with np.load(out) as actual:
        for name, tolerance in TOLERANCES.items():
            np.testing.assert_allclose(actual[name], expected[REFERENCE_NAMES.get(name, name)], atol=tolerance, rtol=0)


@pytest.fixture(scope="module", params=["stock", "fused"])
def answers(fused_path: Path, request: pytest.FixtureRequest) -> dict[str, RowsAnswer]:
    """Every golden greedy case, all sent at once, with SGLang's layers in decoding steps and with ours."""
    prompts, settings = [case.prompt for case in GREEDY_CASES], [case.settings for case in GREEDY_CASES]
    found = generated(fused_path, prompts, settings, decoding_layers=request.param)
    return {case.key: answer for case, answer in zip(GREEDY_CASES, found, strict=True)}


@pytest.mark.parametrize("case", GREEDY_CASES, ids=lambda case: case.key)
def test_greedy_rows_equal_the_reference(case: GreedyCase, answers: dict[str, RowsAnswer]):
    answer = answers[case.key]
    if len(case.frames) == 0:
        assert answer.error is not None
        assert "no audio" in answer.error
    else:
        assert answer.error is None
        assert answer.text_ids == case.text_ids
        np.testing.assert_array_equal(answer.codes, case.frames)
