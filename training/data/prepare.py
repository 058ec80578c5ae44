"""From JSONL and audio files to a dataset: `prepare`, which goes on where it was broken off; see `run` for the work."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_moss.devices import device_problem
from sglang_moss.request.template import TEMPLATES

from .checkpoint import Checkpoint
from .checks import MAX_PACE
from .directory import PLAN_NAME, WARNINGS_NAME, alone_in, remove, require_ours, write_whole
from .errors import DataError
from .inputs import digest
from .plan import Plan
from .progress import Progress
from .reading import NORMALIZERS, Normalizer
from .run import Run, all_devices
from .storage import INFO_NAME, VERSION, WORK_NAME, DatasetInfo
from .template_check import template_difference

MAX_ROWS = 32_768  # 43 minutes at the real shape


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Attributes:
        n_records: lines of the input that are not blank.
        n_prepared, n_rejected, n_warnings: of them.
        hours: of the dataset.
        encoded_hours: targets and references that this run encoded.
        wall_s: of this run; of it `encoding_s` from the first loaded codec to the last code.
        x_real_time: `encoded_hours` over `encoding_s`; None: nothing was encoded.
        encoder_busy: share of `encoding_s` in which the encoders worked.
        devices: of the encoders.
        was_finished: the dataset was there before.
    """

    output_dir: str
    n_records: int
    n_prepared: int
    n_rejected: int
    n_warnings: int
    hours: float
    encoded_hours: float = 0.0
    wall_s: float = 0.0
    encoding_s: float = 0.0
    x_real_time: float | None = None
    encoder_busy: float | None = None
    devices: tuple[str, ...] = ()
    was_finished: bool = False

    def __str__(self) -> str:
        if self.was_finished:
            return f"finished before: {self.n_prepared} examples, {self.hours:.2f} h, {self.n_rejected} rejected"
        speed = "" if self.x_real_time is None else f", encoded at {self.x_real_time:.0f} x real time"
        return (
            f"{self.n_prepared} examples, {self.hours:.2f} h{speed}; {self.n_rejected} rejected, "
            f"{self.n_warnings} warnings: {self.output_dir}"
        )


def prepare(
    jsonl: str | Path | Sequence[str | Path],
    model_path: str | Path,
    output_dir: str | Path,
    *,
    codec_path: str | Path | None = None,
    base_dir: str | Path | None = None,
    normalizer: Normalizer = "none",
    template: str = "ttsd",
    max_rows: int = MAX_ROWS,
    max_pace: float = MAX_PACE,
    ignore_unknown: bool = False,
    devices: Sequence[str] | None = None,
    n_decoders: int | None = None,
    check_template: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Make a dataset, or go on with one that was broken off by the same call.

    Args:
        jsonl: a file or several, see `records` for their forms.
        model_path: of the language model to be fine-tuned, or of a fused checkpoint.
        output_dir: of the dataset; made if it is not there.
        codec_path: of the codec; None with a fused checkpoint.
        base_dir: where relative paths begin; None: in the working directory, or else beside the JSONL file.
        normalizer: of texts: none, `generate` as `${normalize_text}` does, `ordinary` as the speech API does.
        template: of prompts, see `sglang_moss.request.template`.
        max_rows: examples that take more are rejected.
        max_pace: see `checks.check_pace`.
        ignore_unknown: pass over fields that no form has.
        devices: torch's names, an encoding process each; None: all GPUs, or the CPU.
        n_decoders: processes that read audio; None: by the machine.
        check_template: refuse a template that is not the model directory's own, see `template_check`.
        overwrite: begin again, whatever of a dataset is in `output_dir`.
        progress: show a bar, and say what is rejected as it comes; else only the result is returned.
    Raises:
        DataError: an argument or the input cannot be used, another run began `output_dir`, no record was fit, or a
            process failed; the message says what to do.
        FuseError: a checkpoint is incomplete.
        OSError: a file cannot be read or written.
    """
    began = time.monotonic()
    paths = [Path(jsonl)] if isinstance(jsonl, str | Path) else [Path(one) for one in jsonl]
    directory = Path(output_dir)
    _check_arguments(paths, normalizer, template, max_rows, base_dir)
    for device in devices or ():
        if (problem := device_problem(device)) is not None:
            raise DataError(f"--device: {problem}")
    checkpoint = Checkpoint.open(model_path, codec_path)
    if check_template and (difference := template_difference(Path(model_path), TEMPLATES[template])) is not None:
        raise DataError(f"{difference}: choose another --template")
    plan = Plan(
        format_version=VERSION,
        inputs=[digest(path) for path in paths],
        codec_sha256=checkpoint.codec.digest(),
        tokenizer_sha256=checkpoint.tokenizer_digest(),
        n_vq=checkpoint.tokens.n_vq,
        base_dir=None if base_dir is None else str(base_dir),
        normalizer=normalizer,
        template=template,
        max_rows=max_rows,
        max_pace=max_pace,
        ignore_unknown=ignore_unknown,
    )
    if overwrite:
        remove(directory)
    if (directory / INFO_NAME).exists():
        plan.require_same(directory / PLAN_NAME, directory)
        shutil.rmtree(directory / WORK_NAME, ignore_errors=True)
        return _summary(directory, plan, was_finished=True)
    require_ours(directory)
    work = directory / WORK_NAME
    work.mkdir(parents=True, exist_ok=True)
    devices = list(devices) if devices else all_devices()
    with alone_in(work):
        if (work / PLAN_NAME).exists():
            plan.require_same(work / PLAN_NAME, directory)
        else:
            write_whole(work / PLAN_NAME, plan.to_json())
        with Progress(sum(one.n_lines for one in plan.inputs), shown=progress) as bar:
            run = Run(paths, checkpoint, plan, directory, bar)
            counts = run.encode(devices, n_decoders)
            bar.say("all clips are encoded, the dataset is being written")
            run.publish()
        shutil.rmtree(work)
    encoded_s = counts.encoded_frames / run.frame_rate
    return _summary(
        directory,
        plan,
        encoded_hours=encoded_s / 3600,
        wall_s=time.monotonic() - began,
        encoding_s=counts.encoding_s,
        x_real_time=encoded_s / counts.encoding_s if encoded_s else None,
        encoder_busy=counts.busy_s / len(devices) / counts.encoding_s if encoded_s else None,
        devices=tuple(devices),
    )


def _check_arguments(
    paths: Sequence[Path], normalizer: str, template: str, max_rows: int, base_dir: str | Path | None
) -> None:
    if not paths:
        raise DataError("no JSONL file was named")
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("a JSONL file was named twice")
    for name, value, known in (("normalizer", normalizer, NORMALIZERS), ("template", template, tuple(TEMPLATES))):
        if value not in known:
            raise DataError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    if max_rows < 1:
        raise DataError(f"max_rows is {max_rows}, expected a positive number")
    if base_dir is not None and not Path(base_dir).is_dir():
        raise DataError(f"base_dir is {base_dir}, which is no directory: name the one where the paths of clips begin")


def _summary(directory: Path, plan: Plan, **figures: Any) -> Summary:
    info = DatasetInfo.read(directory)
    return Summary(
        output_dir=str(directory),
        n_records=sum(one.n_lines for one in plan.inputs),
        n_prepared=info.n_examples,
        n_rejected=info.n_rejected,
        n_warnings=sum(1 for _ in (directory / WARNINGS_NAME).open("rb")),
        hours=info.hours,
        **figures,
    )
