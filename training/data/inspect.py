"""What is in a dataset: hours, lengths, speakers, languages, what was rejected, and how well it packs."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..planning import Planner
from ..rows import n_input_rows
from .dataset import SpeechDataset
from .directory import WARNINGS_NAME
from .storage import REJECTED_NAME

PACK_ROWS = 16_384
_PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_MOST_SHOWN = 10
_PARTICULARS = re.compile(r"^.*?\.\w+: |'[^']*'|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Lengths:
    """Percentiles of a length: 0 is the shortest, 100 the longest."""

    mean: float
    percentiles: dict[int, float]

    @classmethod
    def of(cls, values: np.ndarray) -> "Lengths":
        found = np.percentile(values, _PERCENTILES, method="nearest")
        return cls(float(values.mean()), {p: float(v) for p, v in zip(_PERCENTILES, found, strict=True)})

    def __str__(self) -> str:
        names = {0: "shortest", 50: "median", 100: "longest"}
        shown = "  ".join(f"{names.get(p, f'{p} %')} {value:.6g}" for p, value in self.percentiles.items())
        return f"mean {self.mean:.6g}  {shown}"


@dataclass(frozen=True)
class Report:
    """What `inspect_dataset` found.

    Attributes:
        seconds: of targets.
        rows: that the model reads of each example.
        pack_fill: share of rows used in packs of `PACK_ROWS`, of the first epoch by seed 0.
        padded_fill: the same of batches of 8, padded to their longest, in random order.
        speakers, languages: examples by number of speakers, and by the field `language` ("" without).
        reasons: rejected records by sentence, particulars left out, the most frequent first.
    """

    directories: list[str]
    n_examples: int
    hours: float
    n_vq: int
    codec_sha256: str
    template: str
    normalizer: str
    seconds: Lengths
    rows: Lengths
    pack_fill: float
    padded_fill: float
    n_references: int
    n_given_codes: int
    speakers: dict[int, int]
    languages: dict[str, int]
    n_rejected: int
    n_warnings: int
    reasons: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.n_examples} examples, {self.hours:.2f} h, {self.n_references} reference clips, n_vq {self.n_vq}",
            f"codec {self.codec_sha256[:16]}, template {self.template}, normaliser {self.normalizer}",
            f"seconds     {self.seconds}",
            f"rows        {self.rows}",
            f"fill        {self.pack_fill:.3f} in packs of {PACK_ROWS}; {self.padded_fill:.3f} in padded batches of 8",
            f"speakers    {_counted({f'{k}': n for k, n in self.speakers.items()})}",
            f"languages   {_counted({k or 'not given': n for k, n in self.languages.items()})}",
        ]
        if self.n_given_codes:
            lines.append(f"{self.n_given_codes} examples came with their codes, which nobody checked against the codec")
        lines.append(f"{self.n_warnings} warnings, {self.n_rejected} rejected")
        lines += [f"  {n} x {reason}" for reason, n in list(self.reasons.items())[:_MOST_SHOWN]]
        return "\n".join(lines)


def inspect_dataset(directories: Sequence[str | Path]) -> Report:
    """Look at one dataset, or at several as one; codes are not read.

    Raises:
        DataError: see `SpeechDataset`.
    """
    dataset = SpeechDataset(directories)
    info = dataset.info
    rows = n_input_rows(dataset.n_prompt_rows, dataset.n_frames, info.n_vq)
    return Report(
        directories=[str(directory) for directory in directories],
        n_examples=len(dataset),
        hours=info.hours,
        n_vq=info.n_vq,
        codec_sha256=info.codec_sha256,
        template=info.template,
        normalizer=info.normalizer,
        seconds=Lengths.of(_seconds(dataset)),
        rows=Lengths.of(rows),
        pack_fill=_pack_fill(rows),
        padded_fill=_padded_fill(rows),
        n_references=sum(info.reference_rows),
        n_given_codes=info.n_given_codes,
        speakers={int(k): n for k, n in sorted(Counter(dataset.n_speakers.tolist()).items())},
        languages=dict(dataset.count_languages().most_common()),
        n_rejected=info.n_rejected,
        n_warnings=sum(len(_problems(Path(directory) / WARNINGS_NAME)) for directory in directories),
        reasons=dict(
            Counter(
                reason_of(problem)
                for directory in directories
                for problem in _problems(Path(directory) / REJECTED_NAME)
            ).most_common()
        ),
    )


def draw_lengths(directories: Sequence[str | Path], path: Path) -> None:
    """A histogram of the targets' lengths as PNG: how many there are, and how many hours they make.

    Raises:
        DataError: see `SpeechDataset`.
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # only here: it takes a second to import

    seconds = _seconds(SpeechDataset(directories))
    edges = np.geomspace(max(seconds.min(), 1e-2) * 0.999, seconds.max() * 1.001, 41)
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    upper.hist(seconds, edges, color="tab:blue")
    upper.set_ylabel("examples")
    upper.set_title(f"{len(seconds)} examples, {seconds.sum() / 3600:.2f} h")
    lower.hist(seconds, edges, weights=seconds / 3600, color="tab:orange")
    lower.set_ylabel("hours")
    lower.set_xlabel("seconds of an example")
    lower.set_xscale("log")
    figure.savefig(path, format="png", dpi=120)


def reason_of(problem: str) -> str:
    """A sentence without what is particular to its record: a path in front, quoted words, numbers."""
    return _PARTICULARS.sub(lambda found: "" if found[0].endswith(": ") else "...", problem)


def _seconds(dataset: SpeechDataset) -> np.ndarray:
    return dataset.n_frames * (dataset.info.frame_samples / dataset.info.sampling_rate)


def _pack_fill(rows: np.ndarray) -> float:
    packs = Planner(rows, PACK_ROWS, packs_per_step=1, seed=0).packs(0)
    return float(rows.sum() / sum(max(PACK_ROWS, int(rows[list(pack)].sum())) for pack in packs))


def _padded_fill(rows: np.ndarray, batch: int = 8) -> float:
    shuffled = np.random.default_rng(0).permutation(rows)
    starts = np.arange(0, len(rows), batch)
    sizes = np.diff(starts, append=len(rows))
    return float(rows.sum() / (np.maximum.reduceat(shuffled, starts) * sizes).sum())


def _problems(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [json.loads(line)["problem"] for line in path.read_text(encoding="utf-8").splitlines()]


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name}: {n}" for name, n in list(counts.items())[:_MOST_SHOWN]]
    return ", ".join(shown) + (f", and {len(counts) - _MOST_SHOWN} more" if len(counts) > _MOST_SHOWN else "")
