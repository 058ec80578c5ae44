"""What a run tells while it goes on: a bar, a line of JSON a step, curves for TensorBoard, and a plot in the end."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

LOG_NAME, PLOT_NAME, CURVES_NAME = "log.jsonl", "loss.svg", "tensorboard"
_CURVES = ("loss", "text_loss", "audio_loss", "rate", "gradient_norm", "rows_per_s", "waiting_share", "memory_gb")


class Progress:
    """The record of one output directory; only rank 0 has one."""

    def __init__(self, directory: Path, first_step: int, n_steps: int, *, tensorboard: bool) -> None:
        """
        Args:
            directory: of the run.
            first_step: steps done before; what was recorded beyond them belongs to a run that was broken off.
            n_steps: steps of the whole run.
            tensorboard: write curves too.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / LOG_NAME
        kept = [line for line in read_log(directory) if line["step"] <= first_step]
        beside = self._path.with_suffix(".part")  # killed here, the run keeps what was recorded
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        beside.replace(self._path)
        self._directory = directory
        self._bar = tqdm(total=n_steps, initial=first_step, unit="step", disable=None, file=sys.stderr)
        self._curves: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._curves = SummaryWriter(str(directory / CURVES_NAME), purge_step=first_step + 1)

    def step(self, line: Mapping[str, Any]) -> None:
        """One optimizer step."""
        self._write(line)
        if self._curves is not None:
            for name in _CURVES:
                if line.get(name) is not None:
                    self._curves.add_scalar(f"train/{name}", line[name], line["step"])
        self._bar.update(line["step"] - self._bar.n)
        self._bar.set_postfix_str(f"loss {line['loss']:.4f}, {line['rows_per_s']:.0f} rows/s", refresh=False)

    def validated(self, line: Mapping[str, Any]) -> None:
        """One validation."""
        self._write(line)
        if self._curves is not None:
            self._curves.add_scalar("validation/loss", line["validation_loss"], line["step"])
            for channel, loss in enumerate(line["validation_channels"]):
                self._curves.add_scalar(f"validation/channel_{channel}", loss, line["step"])
        self.say(f"step {line['step']}: validation loss {line['validation_loss']:.4f}")

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        with self._bar.external_write_mode(file=sys.stderr):
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Plot what was recorded."""
        self._bar.close()
        if self._curves is not None:
            self._curves.close()
        plot(self._directory)

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Lines of a run's record; a last one that was cut short is left out."""
    path = directory / LOG_NAME
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def plot(directory: Path) -> None:
    """Draw the losses of a run."""
    lines = read_log(directory)
    steps = [line for line in lines if "loss" in line]
    if not steps:
        return
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, label in (("loss", "training"), ("text_loss", "text"), ("audio_loss", "audio, mean of codebooks")):
        axes.plot(*_series(steps, name), label=label, linewidth=0.8 if name != "loss" else 1.4)
    validated = [line for line in lines if "validation_loss" in line]
    if validated:
        axes.plot(*_series(validated, "validation_loss"), "o-", label="validation", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("cross entropy")
    axes.legend()
    figure.tight_layout()
    figure.savefig(directory / PLOT_NAME)
    pyplot.close(figure)


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    return [line["step"] for line in lines], [line[name] for line in lines]
