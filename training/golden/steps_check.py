"""Some optimizer steps of upstream's own training loop, from the same micro-batches."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sglang_moss.request.golden_report import Case

from ..loss import channel_weights, pack_scales
from ..model import SpeechModel
from ..optimizer import clip, make_optimizer, set_rate
from ..pack import make_pack
from ..rows import IGNORED
from ..schedule import rate_share
from .records import GoldenRecords

_LOSS = 2e-5  # relative: what a few steps make of 1e-6 in a gradient
_NORM = 1e-4
_CLIPPED = 1e-5
# An element whose gradient is about AdamW's eps moves by a share of the learning rate that rounding decides.
_VALUE_PER_RATE = 0.01


def check_steps(directory: Path, records: GoldenRecords, model: SpeechModel) -> Iterator[Case]:
    """Repeat `train_run.json`; the model is changed."""
    stored = json.loads((directory / "train_run.json").read_text(encoding="utf-8"))
    with np.load(directory / "train_run.npz") as arrays:
        first_values = dict(arrays)
    args = stored["finetune_args"]
    weights = channel_weights(args["resolved_channelwise_loss_weight"], records.tokens.n_vq)
    parameters = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = make_optimizer(
        parameters,
        betas=(args["adam_beta1"], args["adam_beta2"]),
        eps=args["adam_eps"],
        weight_decay=args["weight_decay"],
        decay_all=True,
    )
    done = iter(stored["micro_steps"])
    for step, (expected, batches) in enumerate(zip(stored["optimizer_steps"], _steps(stored), strict=True)):
        case = Case(f"train_run step {step}")
        share = rate_share(args["lr_scheduler_type"], step, args["resolved_warmup_steps"], args["max_train_steps"])
        rate = args["learning_rate"] * share
        case.close("rate", [rate], [expected["lr"]], 1e-9)
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        for keys in batches:
            rows = records.many(keys)
            counts = np.sum([(r.labels != IGNORED).sum(0) for r in rows], axis=0)
            scales = pack_scales(weights, counts[None], "upstream")[0] / args["gradient_accumulation_steps"]
            loss, _ = model(make_pack([(r.rows, r.labels) for r in rows], scales).to(model.device))
            loss.backward()
            case.close("loss", [loss.item() * args["gradient_accumulation_steps"]], [next(done)["loss"]], _LOSS)
        norm = clip(parameters.values(), args["max_grad_norm"]).item()
        case.close("gradient", [min(norm, args["max_grad_norm"])], [expected["grad_norm_after_clip"]], _CLIPPED)
        optimizer.step()
        yield case

    weights_case, largest = Case("train_run weights"), 0.0
    for name, parameter in parameters.items():
        inner = Case(name)
        value = parameter.detach()
        inner.close(f"norm of {name}", [value.norm().item()], [stored["final_norms"][name]], _NORM)
        change = (value - before[name]).norm().item()
        inner.close(f"change of {name}", [change], [stored["change_norms"][name]], _NORM)
        gap = np.abs(value.flatten()[: len(first_values[name])].cpu().numpy() - first_values[name]).max()
        if not gap <= _VALUE_PER_RATE * args["learning_rate"]:
            inner.differences.append(f"{name} is off by {gap:.3g}")
        weights_case.differences += inner.differences
        largest = max(largest, float(gap))
    weights_case.notes.append(f"values within {largest / args['learning_rate']:.1e} of the learning rate")
    yield weights_case


def _steps(stored: dict[str, Any]) -> Iterator[list[list[str]]]:
    """Micro-batches of each optimizer step: an epoch's last step may have fewer, and the collator runs ahead."""
    args = stored["finetune_args"]
    per_epoch, per_step = args["micro_batches_per_epoch"], args["gradient_accumulation_steps"]
    batches = stored["batches"][: len(stored["micro_steps"])]
    for epoch in range(0, len(batches), per_epoch):
        of_epoch = batches[epoch : epoch + per_epoch]
        for start in range(0, len(of_epoch), per_step):
            yield of_epoch[start : start + per_step]
