"""Whether every way to train on a GPU gives the same: attention backends, kernels, compilation, checkpointing.

    python3 -m sglang_moss.benchmarks.training_checks --out training_checks.jsonl

A small model with the real shape of a head, random weights, packs of segments of 1 to 700 rows. float32 ways must agree
with plain torch within 1e-5 of the gradient's norm; in bfloat16 no way may be further from float32 than twice what
plain attention is. Attention across segments is measured as well: it is far from all of them. Exit status 1: not so.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..training.building import build
from ..training.config_file import config_of
from ..training.cross_entropy import cross_entropy_, cross_entropy_reference
from ..training.distributed import World
from ..training.errors import TrainingError
from ..training.loss import channel_weights, loss_scales
from ..training.model import SpeechModel
from ..training.pack import Pack, make_pack
from ..training.rows import IGNORED, labels_of
from .runs.golden import add_golden_argument
from .runs.record import record
from .steps.training_shapes import TrainingCase, write_shape

SMALL = {
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 1024,
    "vocab_size": 4096,
}
_LENGTHS = (1, 700, 33, 128, 257, 64, 400)
_FLOAT32 = 1e-5
_TIMES_PLAIN = 2.0


@dataclass(frozen=True)
class Way:
    """One way to compute the same."""

    attention: str
    dtype: str = "float32"
    checkpointing: str = "none"
    compiles: bool = False
    method: str = "full"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_golden_argument(parser)
    parser.add_argument("--out", type=Path, default=Path("training_checks.jsonl"))
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        write_shape(Path(folder) / "model", args.golden, TrainingCase("full", SMALL), None)
        lines = record(args.out, _lines(Path(folder) / "model", device))
    return 0 if all(line.get("agrees", True) for line in lines) else 1


def _lines(model: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    if device.type == "cuda":
        yield from _kernel_lines(device)
    for method in ("full", "lora"):
        exact = _gradient(model, Way("sdpa", method=method), device)
        plain = distance_of(_gradient(model, Way("sdpa", "bfloat16", method=method), device), exact)
        yield {"check": method, "attention": "sdpa", "dtype": "bfloat16", "distance": plain}
        for way in _ways(device, method):
            line = {"check": method, **{k: v for k, v in vars(way).items() if k != "method"}}
            try:
                distance = distance_of(_gradient(model, way, device), exact)
            except (TrainingError, ImportError, NotImplementedError, RuntimeError) as error:
                yield {**line, "error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                continue
            allowed = _FLOAT32 if way.dtype == "float32" else _TIMES_PLAIN * plain
            yield {**line, "distance": distance, "allowed": allowed, "agrees": distance <= allowed}
    leaking = distance_of(_gradient(model, Way("sdpa"), device, leaks=True), _gradient(model, Way("sdpa"), device))
    yield {"check": "attention across segments", "distance": leaking, "agrees": leaking > 100 * _FLOAT32}


def _ways(device: torch.device, method: str) -> Iterator[Way]:
    base = Way("sdpa", method=method)
    yield replace(base, checkpointing="selective")
    yield replace(base, checkpointing="full")
    yield replace(base, checkpointing="selective", compiles=True)
    if device.type == "cuda":
        yield replace(base, attention="flex")
        for name in ("varlen", "fa4", "flex"):
            yield replace(base, attention=name, dtype="bfloat16")
        for compiles in (False, True):
            yield replace(base, attention="varlen", dtype="bfloat16", checkpointing="selective", compiles=compiles)


def _gradient(model_path: Path, way: Way, device: torch.device, *, leaks: bool = False) -> torch.Tensor:
    """The whole gradient of one pack, [all parameters] float32, and the loss as its last entry."""
    compute = {
        "device": str(device),
        "dtype": way.dtype,
        "attention": way.attention,
        "checkpointing": way.checkpointing,
        "compile": way.compiles,
    }
    settings = {"model": str(model_path), "dataset": "x", "output": "x", "method": way.method, "compute": compute}
    torch.manual_seed(0)
    model, trained = build(config_of({**settings, "lora": {"rank": 8}}), World(0, 1, device), None)
    generator_state = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        masters = trained.tensors
        for name, parameter in model.named_parameters():
            values = torch.empty(parameter.shape, device=device)
            values.normal_(1.0 if values.dim() == 1 else 0.0, 0.05, generator=generator_state)
            parameter.copy_(values)
            if name in masters:
                masters[name].copy_(values)
    pack = small_pack(model, leaks=leaks).to(device)
    loss, _ = model(pack)
    loss.backward()
    trained.reduce()
    flat = [tensor.grad.flatten() for tensor in trained.tensors.values() if tensor.grad is not None]
    return torch.cat([*flat, loss.detach().float()[None]])


def small_pack(model: SpeechModel, seed: int = 3, *, leaks: bool = False) -> Pack:
    """Segments of 1 to 700 rows; `leaks`: attention may cross them."""
    tokens, rng = model.shape.tokens, np.random.default_rng(seed)
    examples = []
    for length in _LENGTHS:
        rows = rng.integers(0, tokens.pad_code, (length + 1, 1 + tokens.n_vq)).astype(np.int32)
        examples.append((rows, labels_of(rows, 1 + length // 3, tokens.pad_code)))
    counts = np.sum([(labels != IGNORED).sum(0) for _, labels in examples], axis=0)
    pack = make_pack(examples, loss_scales(channel_weights((1, 32), tokens.n_vq), counts), pad_to=256)
    if not leaks:
        return pack
    n_rows = len(pack.rows)
    return replace(pack, cu_seqlens=torch.tensor([0, n_rows], dtype=torch.int32), max_rows=n_rows)


def distance_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    """How far apart, over the norm of what is exact."""
    return ((found - exact).norm() / exact.norm()).item()


def _kernel_lines(device: torch.device) -> Iterator[dict[str, Any]]:
    """The cross-entropy kernel at the real widths."""
    for n_values, n_channels in ((155_648, 1), (1024, 16)):
        for dtype in (torch.float32, torch.bfloat16):
            logits = 3 * torch.randn(64 * n_channels, n_values, device=device)
            labels = torch.randint(0, n_values, (len(logits),), device=device, dtype=torch.int32)
            labels[::5] = IGNORED
            scales = torch.rand(n_channels, device=device)
            ours, plain = logits.to(dtype), logits.to(dtype)
            distances = distance_of(
                cross_entropy_(ours, labels, scales), cross_entropy_reference(plain, labels, scales)
            )
            distance = max(distances, distance_of(ours.float(), plain.float()))
            allowed = 1e-5 if dtype == torch.float32 else 1e-3
            line = {"check": "cross_entropy", "values": n_values, "dtype": str(dtype), "distance": distance}
            yield {**line, "allowed": allowed, "agrees": distance <= allowed}


if __name__ == "__main__":
    sys.exit(main())
