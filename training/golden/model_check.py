"""Losses and gradients of the golden checkpoint: each record alone, padded, and packed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglang_moss.request.golden_report import Case

from ..loss import channel_weights, loss_scales
from ..model import ModelShape, SpeechModel, empty_model
from ..pack import make_pack
from ..rows import IGNORED
from ..weights import load_weights
from .records import GoldenRecords, GoldenRows

TOLERANCE = 1e-5  # relative; float32 in another order of sums gives 1e-6, a leak between segments 1e-3
_NOISE = 1e-9  # of the whole gradient: what is exactly 0 in one order of sums is this in another
_PACKINGS = ("packed_block_mask", "packed_by_position_ids")


@dataclass(frozen=True)
class Losses:
    """What one forward and backward pass gives."""

    loss: float
    sums: np.ndarray  # [1 + n_vq] cross entropies of each channel
    counts: np.ndarray  # [1 + n_vq] labels
    gradients: dict[str, Tensor]


def golden_model(checkpoint: Path, attention: str, device: str = "cpu") -> SpeechModel:
    """The checkpoint in float32."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    model = empty_model(ModelShape.from_dict(config), torch.device(device), torch.float32)
    load_weights(model, checkpoint)
    model.attention = attention
    return model


def run(model: SpeechModel, rows: Sequence[GoldenRows], weights: Sequence[float] | None) -> Losses:
    """One pass over a pack."""
    counts = np.sum([(r.labels != IGNORED).sum(0) for r in rows], axis=0)
    scales = loss_scales(channel_weights(weights, len(counts) - 1), counts)
    model.zero_grad()
    loss, sums = model(make_pack([(r.rows, r.labels) for r in rows], scales).to(model.device))
    loss.backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return Losses(loss.item(), sums.double().cpu().numpy(), counts, gradients)


def check_model(directory: Path, records: GoldenRecords, model: SpeechModel) -> Iterator[Case]:
    """Every entry of `loss.json` and `grads.npz`."""
    stored = json.loads((directory / "loss.json").read_text(encoding="utf-8"))
    with np.load(directory / "grads.npz") as arrays:
        slices = dict(arrays)
    for name, results in stored["results"].items():
        rows = records.many(results.get("samples", [name]))
        for weighting, weights in stored["weights"].items():
            if weighting in results:
                yield _whole(f"{name} {weighting}", run(model, rows, weights), results[weighting])
        if "samples" in results:
            yield from _group(name.removeprefix("group."), model, rows, results, stored["weights"]["default"], slices)


def _whole(name: str, made: Losses, stored: dict[str, Any]) -> Case:
    case = Case(name)
    case.equal("labels", made.counts, np.sum(stored["token_nums"], axis=0))
    case.close("loss", [made.loss], [stored["loss"]], TOLERANCE)
    case.close("channels", (made.sums / np.maximum(made.counts, 1)).tolist(), stored["channel_losses"], TOLERANCE)
    if "grad_norms" in stored:
        norms = {n: torch.linalg.vector_norm(g.double()).item() for n, g in made.gradients.items()}
        case.close("gradient", [float(np.linalg.norm(list(norms.values())))], [stored["grad_norm"]], TOLERANCE)
        absent = stored["grad_norms"].keys() - norms
        case.differences += [f"no gradient of {n}" for n in sorted(absent) if stored["grad_norms"][n]]
        for n in sorted(norms):
            expected = stored["grad_norms"].get(n, 0.0)
            if not abs(norms[n] - expected) <= TOLERANCE * expected + _NOISE * stored["grad_norm"]:
                case.differences.append(f"gradient of {n}: norm {norms[n]:.7g}, stored {expected:.7g}")
    return case


def _group(
    name: str,
    model: SpeechModel,
    rows: list[GoldenRows],
    results: dict[str, Any],
    weights: list[float],
    slices: dict[str, np.ndarray],
) -> Iterator[Case]:
    alone = Case(f"group.{name} sample by sample")
    each = [run(model, [r], weights) for r in rows]
    alone.close(
        "sums", np.stack([one.sums for one in each]).ravel(), slices[f"{name}.all_sum_losses"].ravel(), TOLERANCE
    )
    alone.close("losses", [one.loss for one in each], results["default"]["sample_losses"], TOLERANCE)
    yield alone

    padded = run(model, _padded(rows, model.shape.tokens.text_pad, model.shape.tokens.pad_code), weights)
    case = _whole(f"group.{name} padded", padded, results["default"])
    _check_slices(case, padded.gradients, slices, f"{name}.grad.")
    yield case

    packed = run(model, rows, weights)
    for kind in _PACKINGS:
        case = _whole(f"group.{name} {kind}", packed, results[kind])
        case.equal("segments", np.array([len(r.labels) for r in rows]), np.array(results["packed_lengths"]))
        _check_slices(case, packed.gradients, slices, f"{name}.packed_grad.")
        yield case
    yield _not_leaking(name, packed, results)


def _not_leaking(name: str, packed: Losses, results: dict[str, Any]) -> Case:
    case = Case(f"group.{name} does not leak")
    leaking, padded = results["packed_leaking"]["loss"], results["default"]["loss"]
    if abs(packed.loss - leaking) <= max(abs(leaking - padded) / 2, TOLERANCE * abs(padded)):
        case.differences.append(f"loss {packed.loss:.6f} is that of attention across samples, {leaking:.6f}")
    case.notes.append(f"{abs(packed.loss - leaking):.3f} from the loss that does")
    return case


def _padded(rows: list[GoldenRows], text_pad: int, pad_code: int) -> list[GoldenRows]:
    """Every example as long as the longest; padding on the right is seen by padding alone."""
    longest = max(len(r.rows) for r in rows)
    padded = []
    for r in rows:
        n = longest - len(r.rows)
        filler = np.full((n, r.rows.shape[1]), pad_code, np.int32)
        filler[:, 0] = text_pad
        labels = np.concatenate([r.labels, np.full_like(filler, IGNORED)])
        padded.append(GoldenRows(np.concatenate([r.rows, filler]), r.n_prompt_rows, labels))
    return padded


def _check_slices(case: Case, gradients: dict[str, Tensor], slices: dict[str, np.ndarray], prefix: str) -> None:
    """Stored parts of gradients; which rows they are is not stored, but they are in order."""
    for key, stored in slices.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            whole = gradients[name].numpy()
            part = whole[..., : stored.shape[-1]] if stored.ndim > 1 else whole[:, None]
            wanted = stored if stored.ndim > 1 else stored[:, None]
            if not _has_rows(part, wanted, TOLERANCE * float(np.abs(stored).max())):
                case.differences.append(f"gradient of {name}: the stored part is nowhere in it")


def _has_rows(whole: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    at = -1
    for row in wanted:
        later = np.flatnonzero(np.abs(whole[at + 1 :] - row).max(1) <= tolerance)
        if not len(later):
            return False
        at += 1 + int(later[0])
    return True
