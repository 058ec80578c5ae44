"""Layers of the 8 B model with random weights, as far as a decoding step has to do with them: no SGLang is started."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sglang_moss.backbone import operations
from sglang_moss.backbone.operations import Quantized

N_LAYERS, HIDDEN, INNER, N_HEADS, N_KV_HEADS, HEAD_DIM = 36, 4096, 12_288, 32, 8, 128
# Of products: [N, K].
SIZES = {
    "qkv": ((N_HEADS + 2 * N_KV_HEADS) * HEAD_DIM, HIDDEN),
    "o": (HIDDEN, N_HEADS * HEAD_DIM),
    "gate_up": (2 * INNER, HIDDEN),
    "down": (HIDDEN, INNER),
}
_EPS = 1e-6
_POSITIONS = 2048
_DEVICE = torch.device("cuda")


class Fp8LinearMethod:
    """By SGLang's name, with what of it is looked at."""

    cutlass_fp8_supported, block_quant, use_marlin = True, False, False


class Product:
    """By weights in 8 bits, as SGLang multiplies by them, or in bfloat16."""

    bias = input_scale = None

    def __init__(self, weight: Tensor, in_8_bits: bool) -> None:
        self.quant_method: Any = object()
        if in_8_bits:
            from sglang.kernels.ops.gemm import fp8_scaled_mm

            self.quant_method, self._multiply = Fp8LinearMethod(), fp8_scaled_mm
            rows, scales, _ = operations.quantize(weight)
            self.weight, self.weight_scale = rows.t(), scales
        else:
            self.weight = weight.clone()

    def __call__(self, x: Any) -> tuple[Tensor, None]:
        if isinstance(self.quant_method, Fp8LinearMethod):
            x = x if isinstance(x, Quantized) else self._quantized(x)
            return self._multiply(x.rows, self.weight, x.scales, self.weight_scale, out_dtype=x.dtype), None
        return functional.linear(x, self.weight), None

    def _quantized(self, x: Tensor) -> Quantized:
        from sglang.srt.layers.quantization.fp8_utils import sglang_per_token_quant_fp8

        return Quantized(*sglang_per_token_quant_fp8(x), x.dtype)


class Norm:
    """As SGLang's."""

    variance_epsilon = _EPS

    def __init__(self, size: int) -> None:
        self.weight = 1 + 0.1 * noise(size)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Any:
        from sgl_kernel import fused_add_rmsnorm, rmsnorm

        if residual is None:
            return rmsnorm(x, self.weight, _EPS)
        fused_add_rmsnorm(x, residual, self.weight, _EPS)
        return x, residual


class RotaryEmbedding:
    """By SGLang's name."""

    is_neox_style, rotary_dim = True, HEAD_DIM

    def __init__(self) -> None:
        angles = noise(_POSITIONS, HEAD_DIM // 2).float()
        self.cos_sin_cache = torch.cat([angles.cos(), angles.sin()], dim=1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16, device=_DEVICE)


class MadeAttention:
    """Attention of every layer.

    Attributes:
        of_layer: its output [B, N_HEADS, HEAD_DIM] for queries of that shape in the layer with a number.
    """

    of_layer: Callable[[Tensor, int], Tensor] | None = None


def made_backbone(in_8_bits: bool, attention_of_all: MadeAttention) -> Any:
    """What `DecodingLayers` takes; weights and cache are in 8 bits or in bfloat16."""
    rotation = RotaryEmbedding()
    weights = {name: noise(*size) / size[1] ** 0.5 for name, size in SIZES.items()}

    def layer(number: int) -> Any:
        products = {name: Product(weight, in_8_bits) for name, weight in weights.items()}
        attention = SimpleNamespace(
            attn=_LayerAttention(number, attention_of_all),
            head_dim=HEAD_DIM,
            num_heads=N_HEADS,
            num_kv_heads=N_KV_HEADS,
            q_norm=Norm(HEAD_DIM),
            k_norm=Norm(HEAD_DIM),
            rotary_emb=rotation,
            qkv_proj=products["qkv"],
            o_proj=products["o"],
        )
        mlp = SimpleNamespace(act_fn=_gated, gate_up_proj=products["gate_up"], down_proj=products["down"])
        norms = {"input_layernorm": Norm(HIDDEN), "post_attention_layernorm": Norm(HIDDEN)}
        return SimpleNamespace(self_attn=attention, mlp=mlp, **norms)

    return SimpleNamespace(layers=[layer(number) for number in range(N_LAYERS)], norm=Norm(HIDDEN))


class _LayerAttention:
    k_scale = v_scale = None

    def __init__(self, number: int, of_all: MadeAttention) -> None:
        self.layer_id, self._of_all = number, of_all

    def __call__(self, q: Tensor, _k: None, _v: None, _batch: Any, save_kv_cache: bool) -> Tensor:
        assert not save_kv_cache
        assert self._of_all.of_layer is not None
        return self._of_all.of_layer(q.view(-1, N_HEADS, HEAD_DIM), self.layer_id).flatten(1)


def _gated(gate_up: Tensor) -> Tensor:
    from sgl_kernel import silu_and_mul

    return silu_and_mul(gate_up)
