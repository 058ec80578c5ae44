"""What a run will do, settled before a weight is loaded: its examples, their order, and the steps."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Qwen2Tokenizer

from sglang_moss.request.prompt import Tokenizer
from sglang_moss.request.template import TEMPLATES, TTSD, Template

from .building import read_model_config
from .config import CHECKPOINT_KEYS, TrainConfig
from .errors import TrainingError
from .flops import StepSize
from .loading import Examples, PackDataset, PackOrder, example_lengths
from .loss import channel_weights, pack_scales
from .model import ModelShape
from .planning import Pack, Planner
from .rows import label_counts
from .subsets import Subset, held_out


@dataclass(frozen=True)
class RunPlan:
    """See above."""

    config: TrainConfig
    shape: ModelShape
    tokenizer: Tokenizer
    template: Template
    training: Examples
    validation: Examples | None
    too_long: list[str]  # ids that are left out
    lengths: np.ndarray  # [N] of the training examples
    planner: Planner
    n_steps: int
    weights: np.ndarray | None  # of channels
    identity: dict[str, Any]  # what must be the same for a run to go on from a checkpoint

    def packs_of(self, examples: Examples) -> PackDataset:
        """How packs of some examples are made."""
        config = self.config
        filled = config.packing.rows if config.compute.compile else 0
        tokens = self.shape.tokens
        pad_to = config.packing.pad_to
        return PackDataset(examples, self.tokenizer, tokens, self.template, config.layout, pad_to, filled)

    def orders(self, packs: list[Pack], step: int = 0) -> list[PackOrder]:
        """The packs of one step with the scales of their losses, and with what is hidden in them, where anything is."""
        n_vq = self.shape.tokens.n_vq
        frames = self.training.n_frames
        counts = np.stack([label_counts(int(frames[list(p)].sum()), len(p), n_vq) for p in packs])
        scales = pack_scales(self.weights, counts, self.config.loss.average)
        hidden = (self.config.inputs.hidden_rows, self.config.inputs.hidden_codes)
        return [
            PackOrder(pack, own, hidden, (self.config.seed, step, i))
            for i, (pack, own) in enumerate(zip(packs, scales, strict=True))
        ]

    def nothing(self) -> PackOrder:
        """What a rank does for which no pack is left: the shortest example, of which nothing counts."""
        return PackOrder((int(np.argmin(self.lengths)),), np.zeros(1 + self.shape.tokens.n_vq))

    def size_of(self, packs: list[Pack]) -> StepSize:
        """How much a step reads."""
        chosen = [i for pack in packs for i in pack]
        lengths = self.lengths[chosen]
        n_frames, n_vq = int(self.training.n_frames[chosen].sum()), self.shape.tokens.n_vq
        learnt = label_counts(n_frames, len(chosen), n_vq)[0]
        return StepSize(int(lengths.sum()), int(learnt), int((lengths**2).sum()))


def plan_run(config: TrainConfig, examples: Examples | None = None, validation: Examples | None = None) -> RunPlan:
    """Read the dataset's index and settle the rest.

    Args:
        config: of the run.
        examples: in place of the dataset that `config` names.
        validation: in place of the one that it names.
    Raises:
        TrainingError: the dataset does not fit the checkpoint, or holds nothing to learn.
    """
    directory = Path(config.model)
    shape = ModelShape.from_dict(read_model_config(directory))
    tokens, template = shape.tokens, TTSD
    if examples is None:
        examples, template = open_dataset(config.dataset, config, shape)
    if validation is None and config.validation.dataset is not None:
        validation, other = open_dataset(config.validation.dataset, config, shape)
        if other is not template:
            raise TrainingError(
                f"validation.dataset is prepared with template {other.name}, dataset with {template.name}: "
                "prepare both alike"
            )
    lengths = example_lengths(examples, tokens.n_vq)
    fits = lengths <= config.packing.max_rows
    kept_back = np.zeros(len(examples), bool)
    if validation is None:
        kept_back = held_out(examples.ids, config.validation.share, config.seed)
        if kept_back.any():
            validation = Subset(examples, np.flatnonzero(kept_back & fits))
    learnt = np.flatnonzero(fits & ~kept_back)
    if not len(learnt):
        raise TrainingError(
            f"dataset: none of {len(examples)} examples is left to learn from; packing.max_rows is "
            f"{config.packing.max_rows}"
        )
    training = Subset(examples, learnt)
    packing = config.packing
    planner = Planner(
        lengths[learnt],
        packing.rows,
        packing.per_step,
        config.seed,
        window=packing.window,
        ordered=packing.ordered,
    )
    return RunPlan(
        config=config,
        shape=shape,
        tokenizer=Qwen2Tokenizer.from_pretrained(str(directory)),
        template=template,
        training=training,
        validation=validation if validation is not None and len(validation) else None,
        too_long=[examples.ids[int(i)] for i in np.flatnonzero(~fits)],
        lengths=lengths[learnt],
        planner=planner,
        n_steps=config.steps or planner.n_steps(config.epochs),
        weights=channel_weights(config.loss.weights, tokens.n_vq),
        identity=_identity(config, template, lengths[learnt]),
    )


def open_dataset(path: str | tuple[str, ...], config: TrainConfig, shape: ModelShape) -> tuple[Examples, Template]:
    """A prepared dataset, checked against the checkpoint.

    Raises:
        TrainingError: its codes, its prompts or its template are of another model.
    """
    from .data.dataset import SpeechDataset

    dataset = SpeechDataset(path if isinstance(path, str) else list(path))
    info, tokens = dataset.info, shape.tokens
    if info.n_vq != tokens.n_vq:
        raise TrainingError(
            f"dataset: {path} has n_vq {info.n_vq}, the model in {config.model} has n_vq {tokens.n_vq}: "
            "prepare it with that model"
        )
    if info.codebook_size != shape.n_codes - 1:
        raise TrainingError(
            f"dataset: codes of {path} are below {info.codebook_size}, those of the model in {config.model} below "
            f"{shape.n_codes - 1}: prepare it with that model and its codec"
        )
    if info.template not in TEMPLATES:
        raise TrainingError(f"dataset: {path} is of template {info.template!r}, known are {', '.join(TEMPLATES)}")
    if config.template is not None and info.template != config.template:
        raise TrainingError(
            f"dataset: {path} is prepared with template {info.template}, the run asks for {config.template}: "
            "prepare it again, or change template"
        )
    tokenizer = Path(config.model) / "tokenizer.json"
    if tokenizer.is_file() and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != info.tokenizer_sha256:
        raise TrainingError(f"dataset: {path} is prepared with another tokenizer than {tokenizer}: prepare it again")
    return dataset, TEMPLATES[info.template]


def check_codec(config: TrainConfig) -> None:
    """Refuse a dataset whose codes are of another codec than the one that the model is served with.

    Raises:
        TrainingError: they are. Where no codec is known, nothing is checked.
    """
    from .data.checkpoint import Checkpoint
    from .data.dataset import SpeechDataset

    is_fused = "codec_config" in read_model_config(Path(config.model))
    if not is_fused and config.codec is None:
        return
    path = config.dataset if isinstance(config.dataset, str) else list(config.dataset)
    expected = SpeechDataset(path).info.codec_sha256
    found = Checkpoint.open(config.model, None if is_fused else config.codec, CHECKPOINT_KEYS).codec.digest()
    if found != expected:
        raise TrainingError(
            f"dataset: {config.dataset} has codes of a codec with sha256 {expected[:12]}, the codec in "
            f"{config.model if is_fused else config.codec} has {found[:12]}: prepare it with this codec"
        )


def _identity(config: TrainConfig, template: Template, lengths: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(lengths, "<i8").tobytes()).hexdigest()
    kept = {
        "method": config.method,
        "seed": config.seed,
        "layout": config.layout,
        "template": template.name,
        "examples": len(lengths),
        "lengths_sha256": digest,
        "packing.rows": config.packing.rows,
        "packing.per_step": config.packing.per_step,
        "packing.window": config.packing.window,
        "loss.weights": None if config.loss.weights is None else list(config.loss.weights),
        "loss.average": config.loss.average,
    }
    if config.packing.ordered:
        kept["packing.ordered"] = True
    kept |= {f"inputs.{name}": share for name, share in vars(config.inputs).items() if share}
    if config.method == "lora":
        kept |= {f"lora.{name}": value for name, value in vars(config.lora).items()}
    return kept
