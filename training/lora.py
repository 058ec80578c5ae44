"""LoRA: small matrices beside frozen ones, by peft, kept in its own format and merged on export.

    y = W x + (alpha / rank) B A x        W frozen in the checkpoint's precision, A and B trained

With `audio_heads` the embeddings and heads of codes are trained as a whole beside them.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import LoraConfig
from .errors import TrainingError
from .lora_linear import lora_linear
from .model import SpeechModel

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE_WEIGHTS = "trained_tensors.safetensors"  # trained as a whole, by published name
_ADAPTER = "default"
_PEFT_PREFIX = "base_model.model."
_TARGETS = {
    "all": r"language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj",
    "attention": r"language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj",
    "mlp": r"language_model\.layers\.\d+\.mlp\.(gate|up|down)_proj",
}
_LORA = re.compile(rf"\.lora_(A|B)\.{_ADAPTER}\.weight$")


def add_lora(model: SpeechModel, config: LoraConfig, seed: int) -> None:
    """Freeze a model and put adapters into it, in place; they change nothing before they are trained.

    Raises:
        TrainingError: `targets` takes no linear layer of the backbone.
    """
    from peft import inject_adapter_in_model

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    targets = target_pattern(config.targets)
    if not any(targets.fullmatch(name) for name in linear):
        raise TrainingError(f"lora.targets: {config.targets!r} takes no linear layer; one is named {linear[0]}")
    model.requires_grad_(requires_grad=False)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(_peft_config(config), model, _ADAPTER)
    _draw_again(model, seed)
    for module in model.modules():
        if hasattr(module, "lora_A") and not config.dropout:
            module.__class__ = _as_one_operation(type(module))
    if config.audio_heads:
        for name, parameter in model.named_parameters():
            if name.startswith("emb_ext.") or (name.startswith("lm_heads.") and not name.startswith("lm_heads.0.")):
                parameter.requires_grad_()


def target_pattern(targets: str) -> re.Pattern[str]:
    """The modules that get adapters.

    Raises:
        TrainingError: no regular expression.
    """
    try:
        return re.compile(_TARGETS.get(targets, targets))
    except re.error as error:
        raise TrainingError(
            f"lora.targets: expected {', '.join(_TARGETS)} or a regular expression, got {targets!r} ({error})"
        ) from None


def base_name(name: str) -> str | None:
    """A parameter's name in the checkpoint; None: it is an adapter's."""
    return None if _LORA.search(name) else name.replace(".base_layer.", ".")


def save_adapters(directory: Path, tensors: Mapping[str, Tensor], config: LoraConfig, base: str) -> None:
    """Write trained tensors (by the model's names, float32) as peft does, and whole ones beside them."""
    directory.mkdir(parents=True, exist_ok=True)
    adapters = {
        _PEFT_PREFIX + name.replace(f".{_ADAPTER}.", "."): tensor.contiguous().cpu()
        for name, tensor in tensors.items()
        if _LORA.search(name)
    }
    whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items() if not _LORA.search(name)}
    save_file(adapters, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    if whole:
        save_file(whole, directory / WHOLE_WEIGHTS, metadata={"format": "pt"})
    described = _peft_config(config).to_dict() | {"base_model_name_or_path": base, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in described.items()}
    (directory / ADAPTER_CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n")


class Adapters:
    """Kept adapters, as `save_adapters` or peft wrote them."""

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            TrainingError: the files are missing, or of a kind that is not merged here.
        """
        try:
            config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            weights = load_file(directory / ADAPTER_WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise TrainingError(f"{directory} holds no adapters that can be read: {error}") from None
        if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
            raise TrainingError(f"{directory / ADAPTER_CONFIG}: only plain LoRA without biases can be merged")
        if config.get("rank_pattern") or config.get("alpha_pattern"):
            raise TrainingError(f"{directory / ADAPTER_CONFIG}: one rank and one alpha for all layers can be merged")
        rank = config["r"]
        self.scaling = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
        self._weights = weights
        self.whole = load_file(directory / WHOLE_WEIGHTS) if (directory / WHOLE_WEIGHTS).exists() else {}

    def changes(self) -> "LoraChanges":
        """What they add to which tensors."""
        halves: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self._weights.items():
            module, _, half = name.removeprefix(_PEFT_PREFIX).rpartition(".lora_")
            halves.setdefault(f"{module}.weight", {})[half[:1]] = tensor
        return LoraChanges(halves, self.scaling, self.whole)


class LoraChanges:
    """What training made of a checkpoint's tensors, by published name."""

    def __init__(self, halves: Mapping[str, Mapping[str, Tensor]], scaling: float, whole: Mapping[str, Tensor]) -> None:
        self._halves = halves
        self._scaling = scaling
        self._whole = whole

    def names(self) -> set[str]:
        """Tensors that differ from the base."""
        return set(self._halves) | set(self._whole)

    def apply(self, name: str, base: Tensor) -> Tensor:
        """The merged tensor in float32, not yet rounded."""
        if name in self._whole:
            return self._whole[name].float()
        a, b = (self._halves[name][half].float() for half in "AB")
        return base.float() + self._scaling * (b @ a)


def changes_of(tensors: Mapping[str, Tensor], config: LoraConfig) -> LoraChanges:
    """The same from what is being trained, by the model's names."""
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if found := _LORA.search(name):
            halves.setdefault(f"{name[: found.start()]}.weight", {})[found[1]] = tensor
        else:
            whole[name] = tensor
    return LoraChanges(halves, config.alpha / config.rank, whole)


def _peft_config(config: LoraConfig) -> Any:
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType] (a number, whole or not)
        lora_dropout=config.dropout,
        target_modules=target_pattern(config.targets).pattern,
        bias="none",
        use_rslora=False,
    )


@functools.cache
def _as_one_operation(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of peft's layers with another forward."""
    return type(kind.__name__, (kind,), {"forward": _forward})


def _forward(module: Any, x: Tensor) -> Tensor:
    """A layer with its adapter, as one operation; peft's own forward is for dropout, which needs x twice."""
    base, a, b = module.base_layer, module.lora_A[_ADAPTER].weight, module.lora_B[_ADAPTER].weight
    out, _narrow = lora_linear(x.flatten(0, -2), base.weight, base.bias, a, b, module.scaling[_ADAPTER])
    return out.view(*x.shape[:-1], out.shape[-1])


def _draw_again(model: nn.Module, seed: int) -> None:
    """Start from the same values on every device: A uniform as peft draws it, B zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in _adapters(model):
            if ".lora_A." in name:
                bound = parameter.shape[1] ** -0.5
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
            else:
                parameter.zero_()


def _adapters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if _LORA.search(name):
            yield name, parameter
