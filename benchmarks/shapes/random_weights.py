"""Random weights of the codec under which activations keep their size."""

import torch
from torch import Tensor


def draw_weight(name: str, weight: Tensor, generator: torch.Generator, layer_scale: float, spread: float = 0.0) -> None:
    """Fill one tensor of the codec in place.

    Args:
        name: of a `Codec` parameter or of a checkpoint's tensor.
        layer_scale: scales of layers are drawn from half to one and a half of it.
        spread: standard deviation of norms around 1 and of biases around 0.
    """
    if name.endswith("scale"):
        weight.uniform_(0.5 * layer_scale, 1.5 * layer_scale, generator=generator)
    elif name.endswith("original0"):  # lengths of weight norm
        weight.fill_(1.0)
    elif weight.dim() == 1:
        weight.fill_(1.0 if name.endswith("weight") else 0.0)
        if spread:
            weight += spread * torch.randn(weight.shape, generator=generator, device=weight.device)
    else:
        weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
