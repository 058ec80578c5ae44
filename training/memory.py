"""How much memory a GPU needs, estimated before anything is loaded."""

from dataclasses import dataclass, replace

import torch

from .config import TrainConfig
from .flops import head_parameters, layer_parameters, model_parameters
from .lora import target_pattern
from .model import ModelShape, SpeechModel

_KERNELS_BYTES = 2 * 10**9  # CUDA context, workspaces, and what the allocator cannot fill
_FILLED = 0.9  # share of a GPU that an estimate may come to, where there is a choice


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one GPU."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + _KERNELS_BYTES

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in vars(self).items())
        return f"{self.total / 1e9:.1f} GB ({parts}, kernels {_KERNELS_BYTES / 1e9:.1f})"


def estimate(shape: ModelShape, config: TrainConfig, n_ranks: int, element_bytes: int) -> MemoryEstimate:
    """The estimate for one of `n_ranks` GPUs, computing in elements of so many bytes.

    `compute.exchange` is taken as `pack` where it is not settled.
    """
    n = model_parameters(shape)
    n_trained = trained_parameters(shape, config)
    sharded = is_sharded(config, n_ranks)
    once = sharded and config.compute.exchange == "step"
    masters = 4 * n_trained if element_bytes < 4 else 0
    if sharded:
        # float32 parts, and what is gathered: two layers, the embeddings and the heads at a time, or all of it.
        gathered = element_bytes * (n if once else 2 * layer_parameters(shape) + 2 * head_parameters(shape))
        weights, share = 4 * n // n_ranks + gathered, n_ranks
    else:
        weights, share = element_bytes * n + masters, 1
    accumulates = once and config.packing.per_step > n_ranks
    return MemoryEstimate(
        weights=weights,
        gradients=4 * n_trained // share + (4 * n_trained if accumulates else 0),
        optimizer=8 * n_trained // share,
        activations=_activations(shape, config, element_bytes),
        logits=_logits(shape, config, element_bytes),
    )


def is_sharded(config: TrainConfig, n_ranks: int) -> bool:
    """Whether ranks share the weights out."""
    return config.method == "full" and n_ranks > 1 and config.compute.parallel == "auto"


def settle_exchange(
    config: TrainConfig, shape: ModelShape, n_ranks: int, element_bytes: int, there: int | None
) -> TrainConfig:
    """The same with `compute.exchange` chosen: once a step if the memory is there.

    Args:
        config: of the run.
        shape: of its model.
        n_ranks: GPUs.
        element_bytes: of what the model computes in.
        there: bytes of a GPU; None: nobody knows, and there are enough.
    """
    if config.compute.exchange != "auto" or not is_sharded(config, n_ranks):
        return config
    step, pack = (replace(config, compute=replace(config.compute, exchange=name)) for name in ("step", "pack"))
    fits = there is None or estimate(shape, step, n_ranks, element_bytes).total <= _FILLED * there
    return step if fits else pack


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU; None: it is none."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def trained_parameters(shape: ModelShape, config: TrainConfig) -> int:
    """How many numbers the optimizer steps."""
    if config.method == "full":
        return model_parameters(shape)
    from torch import nn

    targets = target_pattern(config.lora.targets)
    with torch.device("meta"):
        model = SpeechModel(shape)
    n = sum(
        config.lora.rank * sum(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and targets.fullmatch(name)
    )
    if config.lora.audio_heads:
        n += 2 * shape.tokens.n_vq * shape.n_codes * shape.backbone.hidden_size
    return n


def _activations(shape: ModelShape, config: TrainConfig, element_bytes: int) -> int:
    """What is kept between the passes, and one layer that is computed again."""
    c = shape.backbone
    heads = c.num_attention_heads * c.head_dim
    kv = (c.num_key_value_heads or c.num_attention_heads) * c.head_dim
    products = heads + 2 * kv + 2 * c.hidden_size + 2 * c.intermediate_size
    # Beside the products: both norms, rotated queries and keys, the gate after its activation, the gated product.
    whole = products + 4 * c.hidden_size + 3 * (heads + kv) + 2 * c.intermediate_size
    always = heads + (c.hidden_size if config.method == "lora" else 0)
    per_layer = {
        "none": whole,
        "selective": c.hidden_size + always + config.compute.saved_share * (products - c.hidden_size),
        "full": c.hidden_size,
    }[config.compute.checkpointing]
    kept = per_layer * c.num_hidden_layers + (0 if config.compute.checkpointing == "none" else 2 * whole)
    return int(kept * config.packing.rows * element_bytes)


def _logits(shape: ModelShape, config: TrainConfig, element_bytes: int) -> int:
    """One chunk of the loss: logits of the widest head; and float32 gradients of the heads, where they are trained."""
    widest = max(shape.backbone.vocab_size, shape.tokens.n_vq * shape.n_codes)
    rows = min(config.loss.chunk_rows, config.packing.rows)
    trains_text = config.method == "full"
    return rows * widest * element_bytes + (6 * head_parameters(shape) if trains_text else 0)
