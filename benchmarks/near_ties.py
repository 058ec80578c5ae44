"""Near-ties: where half precision decides otherwise than float32, how close were the candidates?

    python -m sglang_moss.benchmarks.near_ties FUSED --write margins.npz                       float32, on a CPU
    python -m sglang_moss.benchmarks.near_ties FUSED --margins margins.npz --dtype bfloat16    on a GPU

Every greedy generation of the golden data is run again, teacher-forced on the reference's own rows. For each decision
(a text id, or a code of an open codebook) the margin is the distance in logits between the two best candidates in
float32. A half-precision run that only rounds differs from the reference where the margin is about as small as its
error, and nowhere else.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglang_moss.config import SpecialTokens
from sglang_moss.delay.state import DelayState, allowed_text, open_codebooks, replay

from .forced_logits import ForcedModel
from .reference.golden_cases import GoldenCases, GreedyCase
from .runs.golden import add_golden_argument
from .runs.record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_path")
    add_golden_argument(parser)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--write", type=Path, help="keep the margins of this run")
    parser.add_argument("--margins", type=Path, help="margins of a float32 run, to compare with")
    parser.add_argument("--out", type=Path, default=Path("near_ties.jsonl"))
    args = parser.parse_args()
    cases = GoldenCases(args.golden)
    model = ForcedModel(args.model_path, args.dtype)
    found = {case.key: decide(model, case, cases.tokens) for case in cases.greedy() if not case.has_penalty}
    if args.write:
        margins: dict[str, Any] = {key: margin for key, (_, margin) in found.items()}
        np.savez_compressed(args.write, **margins)
    if args.margins:
        with np.load(args.margins) as margins:
            line = compare(found, cases, dict(margins))
        record(args.out, [{"dtype": args.dtype, **line}])


def decide(model: ForcedModel, case: GreedyCase, tokens: SpecialTokens) -> tuple[np.ndarray, np.ndarray]:
    """Choices [R, 1 + n_vq] after each row, and their margins in logits; infinite where there is no choice."""
    rows, n_prompt = case.all_rows, len(case.prompt.rows)
    logits = model.run(rows[:-1])
    states = [replay(rows[:end, 0], tokens) for end in range(n_prompt, len(rows))]
    audio_rows, flush_rows = (torch.tensor(counts) for counts in zip(*states, strict=True))
    row = torch.arange(len(states))
    state = DelayState(audio_rows, flush_rows, row, torch.zeros_like(row))

    text = torch.from_numpy(logits["text_logits"][n_prompt - 1 :])
    text = text.masked_fill(~allowed_text(state, text.shape[-1], tokens), -torch.inf)
    audio = torch.from_numpy(logits["audio_logits"][:, n_prompt - 1 :]).transpose(0, 1)  # [R, n_vq, V]
    closed = ~open_codebooks(state, tokens.n_vq)
    best_text, best_audio = text.topk(2, dim=-1), audio.topk(2, dim=-1)
    codes = best_audio.indices[..., 0].masked_fill(closed, tokens.pad_code)
    choices = torch.cat([best_text.indices[:, :1], codes], dim=1)
    text_margin = best_text.values[:, 0] - best_text.values[:, 1]
    code_margin = (best_audio.values[..., 0] - best_audio.values[..., 1]).masked_fill(closed, torch.inf)
    return choices.numpy(), torch.cat([text_margin[:, None], code_margin], dim=1).numpy()


def compare(
    found: dict[str, tuple[np.ndarray, np.ndarray]], cases: GoldenCases, margins: dict[str, np.ndarray]
) -> dict[str, Any]:
    """How many decisions differ from the reference's, and how close those were in float32."""
    flipped: list[float] = []
    every: list[float] = []
    for case in cases.greedy():
        if case.key not in found:
            continue
        choices, _ = found[case.key]
        margin = margins[case.key]
        is_choice = np.isfinite(margin)
        flips = is_choice & (choices != case.all_rows[len(case.prompt.rows) :])
        flipped += margin[flips].tolist()
        every += margin[is_choice].tolist()
    largest = max(flipped, default=0.0)
    return {
        "check": "decisions = reference",
        "decisions": len(every),
        "differ": len(flipped),
        "largest_margin_that_differs": largest,
        "decisions_within_that_margin": int((np.array(every) <= largest).sum()),
        "median_margin": float(np.median(every)),
    }


if __name__ == "__main__":
    main()
