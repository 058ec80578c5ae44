"""The served language model against the reference's logits and greedy generations, on the real engine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN, golden_arrays, golden_json

from sglang_moss.benchmarks.rows_engine import RowsAnswer, RowsEngine, prompt_of_rows
from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.frames import FrameReader

pytestmark = pytest.mark.server

# Measured float32 noise of the reference is 1e-5 on logits of standard deviation 2.4; embeddings are single sums.
TOLERANCES = {"embeddings": 1e-6, "hidden": 1e-4, "text_logits": 1e-4, "audio_logits": 1e-4}
REFERENCE_NAMES = {"embeddings": "input_embeddings", "hidden": "last_hidden_state"}
GENERATE = golden_json("lm/generate")["cases"]
REPETITION = golden_json("lm/repetition")


def test_teacher_forced_embeddings_hidden_states_and_logits_equal_the_reference(fused_path: Path, tmp_path: Path):
    rows = GOLDEN / "cases" / "lm" / "teacher_forced.npz"
    out = tmp_path / "out.npz"
    command = [sys.executable, "-m", "sglang_moss.benchmarks.forced_logits", str(fused_path), str(rows), str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    expected = golden_arrays("lm/teacher_forced")
    with np.load(out) as actual:
        for name, tolerance in TOLERANCES.items():
            np.testing.assert_allclose(actual[name], expected[REFERENCE_NAMES.get(name, name)], atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def tokens() -> SpecialTokens:
    import json

    return special_tokens(json.loads((GOLDEN / "ttsd" / "config.json").read_text()))


@pytest.fixture(scope="module")
def answers(fused_path: Path, tokens: SpecialTokens) -> Iterator[dict[str, RowsAnswer]]:
    """Every golden greedy case, all sent at once."""
    prompts, settings, keys = [], [], []
    for group, cases in (("generate", GENERATE), ("repetition", REPETITION)):
        arrays = golden_arrays(f"lm/{group}")
        for case in cases:
            prompts.append(prompt_of_rows(arrays[f"{case['key']}.input_ids"], tokens))
            penalty = case.get("audio_repetition_penalty", 1.0)
            settings.append(
                {"temperature": 0.0, "repetition_penalty": penalty, "max_new_tokens": case["max_new_tokens"]}
            )
            keys.append(case["key"])
    with RowsEngine(str(fused_path)) as engine:
        yield dict(zip(keys, engine.generate(prompts, settings), strict=True))


def reference_rows(group: str, case: dict) -> np.ndarray:
    """Generated rows of the reference up to its first <audio_end>, where ours ends the request."""
    rows = golden_arrays(f"lm/{group}")[f"{case['key']}.rows"][case["start_length"] :]
    ends = np.flatnonzero(np.isin(rows[:, 0], (610, 602)))
    return rows[: ends[0] + 1] if len(ends) else rows


@pytest.mark.parametrize(
    ("group", "case"),
    [("generate", c) for c in GENERATE] + [("repetition", c) for c in REPETITION],
    ids=lambda v: v if isinstance(v, str) else v["key"],
)
def test_greedy_rows_equal_the_reference(group: str, case: dict, answers: dict[str, RowsAnswer], tokens: SpecialTokens):
    rows = reference_rows(group, case)
    frames = FrameReader(tokens, continues_prompt=case["start_length"] > 0).read(list(rows))
    answer = answers[case["key"]]
    if len(frames) == 0:
        assert answer.error is not None
        assert "no audio" in answer.error
        return
    assert answer.error is None
    assert answer.text_ids == rows[:, 0].tolist()
    np.testing.assert_array_equal(answer.codes, frames)
