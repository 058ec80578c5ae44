"""One command: from settings and a prepared dataset to a checkpoint that is served."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sglang_moss.devices import name_problem
from sglang_moss.request.template import TTSD

from ..fuse import fuse
from ..fuse.errors import FuseError
from .building import build, compute_dtype, read_model_config
from .config import TrainConfig
from .distributed import World, processes
from .errors import TrainingError
from .export import MODEL_NAME, export_adapters, profile_of
from .loading import Examples
from .loop import Loop
from .memory import device_memory, estimate, is_sharded, settle_exchange
from .progress import Progress
from .run_plan import RunPlan, check_codec, plan_run

ADAPTERS_NAME, FUSED_NAME = "adapters", "fused"


@dataclass(frozen=True)
class Outcome:
    """What a run left."""

    n_steps: int
    exported_step: int
    model: Path  # in the layout of the base
    adapters: Path | None
    fused: Path | None

    def __str__(self) -> str:
        parts = [f"trained {self.n_steps} steps, exported step {self.exported_step}: {self.model}"]
        parts += [f"adapters: {self.adapters}"] if self.adapters else []
        parts += [f"serve it: sglang serve --model-path {self.fused} --delay-pattern"] if self.fused else []
        return "\n".join(parts)


def finetune(
    config: TrainConfig, examples: Examples | None = None, validation: Examples | None = None
) -> Outcome | None:
    """Train, and export what came of it.

    Args:
        config: of the run.
        examples: in place of the dataset that `config` names.
        validation: in place of the one that it names.
    Returns:
        What was left, on rank 0.
    Raises:
        TrainingError: a refusal, in one sentence.
    """
    with processes(config.compute.device) as world, _memory_named(config, world):
        if config.compute.deterministic:
            torch.use_deterministic_algorithms(True)
        plan = plan_run(config, examples, validation)
        if world.leads:
            check_settings(config)
            _check_plan(plan)
            if examples is None:
                check_codec(config)
        return _run(plan, world)


def describe(config: TrainConfig, n_ranks: int, examples: Examples | None = None) -> str:
    """What `finetune` would do, without loading a weight.

    Args:
        config: of the run.
        n_ranks: GPUs of the run.
        examples: in place of the dataset that `config` names.
    Raises:
        TrainingError: as `finetune`, as far as that is known before.
    """
    plan = plan_run(config, examples)
    check_settings(config)
    _check_plan(plan)
    if examples is None:
        check_codec(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(config, device)
    config = settle_exchange(config, plan.shape, n_ranks, dtype.itemsize, device_memory(device))
    plan = replace(plan, config=config)
    needed = estimate(plan.shape, config, n_ranks, dtype.itemsize)
    return "\n".join(_described(plan, n_ranks, str(dtype).removeprefix("torch."), str(needed), needed.total))


def _described(plan: RunPlan, n_ranks: int, dtype: str, needed: str, needed_bytes: int) -> Iterator[str]:
    packing, planner = plan.config.packing, plan.planner
    rows, n_packs = int(plan.lengths.sum()), len(planner.packs(0))
    held_out = 0 if plan.validation is None else len(plan.validation)
    yield f"examples      {len(plan.training)} to learn from, {held_out} held out, {len(plan.too_long)} too long"
    if plan.too_long:
        shown = ", ".join(plan.too_long[:3])
        yield f"              left out, above packing.max_rows {packing.max_rows}: {shown}"
    yield f"rows          {rows}, {rows / len(plan.lengths):.0f} an example, the longest {plan.lengths.max()}"
    yield f"packs         {n_packs} of {packing.rows} rows an epoch, {100 * planner.fill(0):.1f} % filled"
    yield f"steps         {plan.n_steps}, {planner.steps_in(0)} an epoch, of {packing.per_step} packs at most"
    gpus = "1 GPU" if n_ranks == 1 else f"{n_ranks} GPUs"
    yield f"              on {gpus}, {-(-packing.per_step // n_ranks)} packs each a step"
    if is_sharded(plan.config, n_ranks):
        yield f"              gradients are exchanged once a {plan.config.compute.exchange}"
    yield f"method        {plan.config.method}, computed in {dtype}, template {plan.template.name}"
    yield f"memory        {needed} a GPU, estimated"
    if torch.cuda.is_available() and (there := device_memory(torch.device("cuda"))):
        verdict = "fits" if needed_bytes < there else "does not fit: " + "; ".join(_knobs(plan.config, n_ranks))
        yield f"              {there / 1e9:.1f} GB are there: {verdict}"


def _run(plan: RunPlan, world: World) -> Outcome | None:
    config = plan.config
    output = Path(config.output)
    model, trained = build(config, world, Path(config.model))
    loop = Loop(plan, model, trained, world)
    latest = loop.checkpoints.latest()
    if latest is not None:
        if not config.checkpoints.resume:
            raise TrainingError(f"{latest} is there: set checkpoints.resume=true to go on, or take another output")
        loop.resume(latest)
    progress = Progress(output, loop.step, plan.n_steps, tensorboard=config.tensorboard) if world.leads else None
    if progress is not None and latest is not None:
        progress.say(f"going on after step {loop.step}")
    try:
        loop.run(progress)
    finally:
        loop.checkpoints.close()
        if progress is not None:
            progress.close()
    step = loop.take_best()
    loop.export(step)
    if not world.leads:
        return None
    adapters = fused = None
    if config.method == "lora":
        adapters = output / ADAPTERS_NAME
        export_adapters(adapters, config.lora, trained.tensors, config.model)
    if config.fuse:
        fused = output / MODEL_NAME
        if config.codec is not None:
            fused = output / FUSED_NAME
            fuse(output / MODEL_NAME, config.codec, fused, overwrite=True)
    return Outcome(loop.step, step, output / MODEL_NAME, adapters, fused)


def check_settings(config: TrainConfig) -> None:
    """Refuse before the work what would fail after it, as far as settings and the checkpoint tell.

    Raises:
        TrainingError: a path or a device cannot be used, or the codec is missing.
        FuseError: what is fused in the end lacks a field.
    """
    if (problem := name_problem(config.compute.device, auto=True)) is not None:
        raise TrainingError(f"compute.device: {problem}")
    if Path(config.output).exists() and not Path(config.output).is_dir():
        raise TrainingError(f"output: {config.output} is a file; name a directory to make")
    for name in (MODEL_NAME, FUSED_NAME):
        replaced = Path(config.output, name).resolve()
        if any(Path(read).resolve().is_relative_to(replaced) for read in (config.model, config.codec) if read):
            raise TrainingError(f"output: this run reads {replaced} and would replace it; take another output")
    is_fused = "codec_config" in read_model_config(Path(config.model))
    if is_fused and config.codec is not None:
        raise TrainingError(f"codec: the model in {config.model} is fused and has its own; leave codec out")
    if (config.fuse or config.samples.every) and not is_fused and config.codec is None:
        asked = "fuse" if config.fuse else "samples.every"
        raise TrainingError(f"{asked} needs the codec: say codec=DIRECTORY, or start from a fused checkpoint")
    if config.fuse and not is_fused and "dtype" not in read_model_config(Path(config.model)):
        raise FuseError(f"{config.model}/config.json has no field 'dtype', which fusing needs: add it")


def _check_plan(plan: RunPlan) -> None:
    """The same of what depends on the dataset."""
    config, template = plan.config, plan.template
    is_fused = "codec_config" in read_model_config(Path(config.model))
    if config.validation.patience and plan.validation is None:
        raise TrainingError("validation.patience needs held-out examples: say validation.share=0.05, or leave it out")
    if config.fuse and not is_fused and template is not TTSD and profile_of(Path(config.model)) is None:
        raise FuseError(
            f"{config.model}: nothing says which model of the family it is, as fusing must know; name its folder as it "
            "was published, or say fuse=false"
        )


@contextmanager
def _memory_named(config: TrainConfig, world: World) -> Iterator[None]:
    """Running out of memory says what to turn."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        there = f" ({n_bytes / 1e9:.0f} GB)" if (n_bytes := device_memory(world.device)) else ""
        raise TrainingError(
            f"rank {world.rank} is out of memory{there}: " + "; ".join(_knobs(config, world.size))
        ) from error


def _knobs(config: TrainConfig, n_ranks: int) -> Iterator[str]:
    """What needs less memory, the cheapest first."""
    compute = config.compute
    if is_sharded(config, n_ranks) and compute.exchange != "pack":
        yield "set compute.exchange=pack"
    if compute.checkpointing == "none":
        yield "set compute.checkpointing=selective"
    elif compute.checkpointing == "selective" and compute.saved_share > 0:
        yield "set compute.saved_share=0"
    elif compute.checkpointing == "selective":
        yield "set compute.checkpointing=full"
    if config.packing.rows > 4096:
        yield f"set packing.rows={config.packing.rows // 2} and packing.per_step={2 * config.packing.per_step}"
    if config.loss.chunk_rows > 512:
        yield f"set loss.chunk_rows={config.loss.chunk_rows // 2}"
    yield "set method=lora" if config.method == "full" else "lower lora.rank"
    if config.method == "full":
        yield "or use more GPUs"
