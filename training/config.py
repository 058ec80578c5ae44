"""What a run is told: the keys of `train.yaml`, each with its default, as the command line may override them."""

from dataclasses import asdict, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

CHECKPOINT_KEYS = ("model=", "codec=")  # what a refusal calls them

_STRICT = ConfigDict(extra="forbid")
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Decay: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


@dataclass(config=_STRICT, frozen=True)
class PackingConfig:
    """How examples are packed."""

    rows: PositiveInt = 16_384  # of a pack; the first thing to lower where memory does not suffice
    per_step: PositiveInt = 8  # packs of an optimizer step, over all GPUs: how many GPUs there are changes no result
    max_rows: PositiveInt = 32_768  # longer examples are left out, and counted
    window: PositiveInt = 4096  # examples that are packed together
    pad_to: PositiveInt = 256  # rows of a pack are filled up to a multiple, so that shapes repeat
    ordered: bool = False  # the dataset's order, shuffled only within windows: for examples that grow harder


@dataclass(config=_STRICT, frozen=True)
class LossConfig:
    """How channels and packs count."""

    weights: tuple[float, ...] | None = (1.0, 32.0)  # text and all audio together, or one a channel; null: every label
    average: Literal["step", "upstream"] = "step"  # upstream: the mean of the packs' own means, for comparison
    chunk_rows: PositiveInt = 2048  # whose logits exist at a time


@dataclass(config=_STRICT, frozen=True)
class InputConfig:
    """What of a target's own codes the model is not shown while it learns the next: it has to follow the text then.

    A small model that starts from nothing would go on from the sound it hears, and never look at the words.
    """

    hidden_rows: Share = 0.0  # share of the target's rows that have pad codes in place of theirs
    hidden_codes: Share = 0.0  # of single codes, in the other rows


@dataclass(config=_STRICT, frozen=True)
class OptimizerConfig:
    """AdamW, and the learning rate over the run."""

    rate: PositiveFloat | None = None  # null: 1e-5 for full training, 1e-4 for LoRA
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    decay_all: bool = False  # norms and embeddings too, as upstream
    clip: NonNegativeFloat = 1.0  # norm of the gradient
    schedule: Literal["linear", "cosine", "wsd", "constant"] = "linear"
    warmup_share: Share = 0.03  # of all steps
    decay_share: Share = 0.2  # of all steps, for wsd
    lowest: Share = 0.0  # share of the rate that is left in the end


@dataclass(config=_STRICT, frozen=True)
class LoraConfig:
    """Adapters beside frozen weights."""

    rank: PositiveInt = 32
    alpha: NonNegativeFloat = 64.0
    dropout: Share = 0.0
    targets: str = "all"  # all, attention, mlp, or a regular expression that takes a module's whole name
    audio_heads: bool = False  # train embeddings and heads of codes as a whole, for a new voice or language


@dataclass(config=_STRICT, frozen=True)
class ComputeConfig:
    """Where and how it is computed."""

    device: str = "auto"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 on a GPU; weights are float32 in any case
    attention: str = "auto"  # auto, varlen, flex, fa4, sdpa
    parallel: Literal["auto", "replicated"] = "auto"  # auto: full training on several GPUs shares the weights out
    exchange: Literal["auto", "step", "pack"] = "auto"  # sharded: how often GPUs exchange; auto: once a step if it fits
    checkpointing: Literal["none", "selective", "full"] = "selective"
    saved_share: Share = 0.5  # selective: share of the layers whose matrix products are kept; 0 saves memory
    compile: bool = False  # each layer; the first steps take a minute longer
    deterministic: bool = False  # bit-equal on a GPU too, and slower


@dataclass(config=_STRICT, frozen=True)
class DataConfig:
    """Reading."""

    workers: NonNegativeInt = 4  # processes of each GPU that make packs, at most one a core; 0: none
    ahead: PositiveInt = 4  # packs that each keeps ready


@dataclass(config=_STRICT, frozen=True)
class ValidationConfig:
    """Loss on examples that are not learnt from."""

    dataset: str | None = None
    share: Share = 0.0  # of `dataset` above, held out by id where none is named
    every: PositiveInt = 100  # steps
    patience: NonNegativeInt = 0  # validations without a better one, after which training ends; 0: never
    export_best: bool = True  # and not the last


@dataclass(config=_STRICT, frozen=True)
class SamplesConfig:
    """Speech of the model as it is being trained."""

    every: NonNegativeInt = 0  # steps; 0: never
    texts: tuple[str, ...] = ("[S1] The train leaves at nine.[S2] Then we should hurry!",)
    examples: NonNegativeInt = 2  # held-out examples, or else the first, that are spoken too, with their references
    max_seconds: NonNegativeFloat = 10.0
    temperature: NonNegativeFloat = 1.1
    top_p: Share = 0.9
    top_k: NonNegativeInt = 50
    repetition_penalty: PositiveFloat = 1.1


@dataclass(config=_STRICT, frozen=True)
class CheckpointConfig:
    """What is kept to go on from."""

    every: PositiveInt = 500  # steps
    keep: PositiveInt = 2
    background: bool = True  # written while training goes on, from a copy in main memory
    resume: bool = True  # from the last whole checkpoint in `output`
    export: bool = False  # the model too, with each of them: what a run that is cut leaves can be served


@dataclass(config=_STRICT, frozen=True)
class TrainConfig:
    """The whole run."""

    model: str  # directory of a published language model, or of a fused checkpoint
    dataset: str | tuple[str, ...]  # directories that `moss-ttsd data prepare` made
    output: str
    codec: str | None = None  # directory of the codec, where `model` is not fused: for samples and for fusing
    template: str | None = None  # ttsd or tts: refuse a dataset of the other; null: whichever it is
    method: Literal["full", "lora"] = "full"
    epochs: PositiveInt = 3
    steps: PositiveInt | None = None  # in place of epochs
    seconds: PositiveFloat | None = None  # end after so long, if steps or epochs are not done before; the rate follows
    seed: int = 42
    layout: Literal["published", "served"] = "published"  # served: only for weights that start from nothing
    log_every: PositiveInt = 1
    tensorboard: bool = True
    fuse: bool = False  # in the end, for `sglang serve`
    packing: PackingConfig = field(default_factory=PackingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    inputs: InputConfig = field(default_factory=InputConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.optimizer.rate or (1e-4 if self.method == "lora" else 1e-5)

    def to_dict(self) -> dict[str, Any]:
        """The keys and values, as YAML and JSON have them."""
        return asdict(self)
