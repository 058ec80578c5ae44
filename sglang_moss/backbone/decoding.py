"""A decoding step through SGLang's layers, with few launches between their products.

The products and attention are the layers' own modules, as SGLang has loaded and quantized them, but for products by fp8
weights that have few rows (`cut`): these may be ours, in parts that the norm after them adds up. With fp8
weights and an fp8 cache SGLang launches twelve kernels a layer between products; five are left here, each of which does
in one pass over a row what has to be done: a norm with the quantization of what it gives (twice), a gated product with
its own, the norm, rotation and caching of the heads, and the quantization of attention's output, which stays SGLang's.
Prefill, and layers over several GPUs, go through SGLang's own `forward`.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sglang_moss.backbone import operations
from sglang_moss.backbone.cut import cut_for
from sglang_moss.backbone.layers import FUSED, STOCK
from sglang_moss.backbone.operations import FP8, Quantized
from sglang_moss.hooking import check_fields


def rules_for(device: torch.device) -> ModuleType:
    """The functions of `operations` for tensors on `device`."""
    if device.type != "cuda":
        return operations
    from sglang_moss.backbone.kernels import step

    return step


_FP8_METHOD = "Fp8LinearMethod"


class DecodingLayers:
    """The layers of one backbone.

    Raises:
        RuntimeError: this SGLang's are otherwise.
        ValueError: they have something that is not done here.
    """

    def __init__(self, backbone: Any, rules: ModuleType) -> None:
        from sglang_moss.hooks import PRIVATE_FIELDS

        first = backbone.layers[0]
        check_fields(PRIVATE_FIELDS, {"Qwen3DecoderLayer": first})
        method = first.mlp.down_proj.quant_method
        if type(method).__name__ == _FP8_METHOD:
            check_fields(PRIVATE_FIELDS, {_FP8_METHOD: method})
        self._norm, self._rules = backbone.norm, rules
        self._layers = [_Layer(layer, rules) for layer in backbone.layers]

    def __call__(self, embeds: Tensor, positions: Tensor, forward_batch: Any) -> Tensor:
        """[B, D] embedded rows, one of each request, to the hidden states that heads take.

        Args:
            positions: [B] of the rows in their requests.
            forward_batch: SGLang's, of a decoding step; `out_cache_loc` says where in the cache the rows go.
        Raises:
            RuntimeError: the attention backend or the cache of this server is not one of those that are known.
        """
        from sglang.srt.model_executor.forward_context import get_attn_backend

        backend: Any = get_attn_backend()
        _check_backend(backend)
        hidden, residual = embeds, None
        for layer in self._layers:
            caches = backend.token_to_kv_pool.get_kv_buffer(layer.number)
            hidden, residual = layer(hidden, residual, positions, forward_batch, *caches)
        assert residual is not None, "a backbone has layers"
        hidden, _ = self._norm(self._rules.added_up(hidden, residual.dtype), residual)
        return hidden


class _Layer:
    """One of them."""

    def __init__(self, layer: Any, rules: ModuleType) -> None:
        _check_layer(layer)
        self._attention, self._mlp = layer.self_attn, layer.mlp
        self._norms = layer.input_layernorm, layer.post_attention_layernorm
        self._rules = rules
        self.number = layer.self_attn.attn.layer_id

    def __call__(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        positions: Tensor,
        forward_batch: Any,
        key_cache: Tensor,
        value_cache: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What the layer adds to the residual, [B, D] or in parts, and the residual up to then.

        Args:
            hidden: as it is returned.
        """
        attention, mlp = self._attention, self._mlp
        first_norm, second_norm = self._norms
        _check_cache(key_cache, value_cache)
        rows, residual = self._normed(first_norm, hidden, residual, attention.qkv_proj)
        qkv = self._product(attention.qkv_proj, rows, may_have_parts=False)
        queries = self._rules.rotate_and_cache(
            qkv,
            attention.q_norm.weight,
            attention.k_norm.weight,
            attention.q_norm.variance_epsilon,
            attention.rotary_emb.cos_sin_cache,
            positions,
            key_cache,
            value_cache,
            forward_batch.out_cache_loc,
        )
        attended = attention.attn(queries, None, None, forward_batch, save_kv_cache=False)
        hidden = self._product(attention.o_proj, attended, may_have_parts=True)
        rows, residual = self._normed(second_norm, hidden, residual, mlp.gate_up_proj)
        gate_up = self._product(mlp.gate_up_proj, rows, may_have_parts=False)
        quantizes = takes_quantized(mlp.down_proj)
        gated = self._rules.gate_quantized(gate_up) if quantizes else mlp.act_fn(gate_up)
        return self._product(mlp.down_proj, gated, may_have_parts=True), residual

    def _normed(self, norm: Any, hidden: Tensor, residual: Tensor | None, product: Any) -> tuple[Any, Tensor]:
        """What a product takes, and the residual with `hidden` in it."""
        if takes_quantized(product):
            rows = self._rules.norm_quantized(hidden, residual, norm.weight, norm.variance_epsilon)
            return rows, hidden if residual is None else residual
        if residual is None:
            return norm(hidden), hidden
        return norm(self._rules.added_up(hidden, residual.dtype), residual)

    def _product(self, product: Any, rows: Any, may_have_parts: bool) -> Tensor:
        """[B, N]; or, where that may be, [parts, B, N], for the norm after it to add up."""
        cut = None
        if takes_quantized(product) and lies_by_columns(product):
            size, n_columns = product.weight.shape
            cut = cut_for(_n_rows(rows), n_columns, size, may_have_parts)
        if cut is None:
            return product(rows)[0]
        rows = rows if isinstance(rows, Quantized) else self._rules.quantize(rows)
        return self._rules.multiply(rows, product.weight, product.weight_scale, cut)


def _n_rows(rows: Any) -> int:
    return len(rows.rows if isinstance(rows, Quantized) else rows)


def takes_quantized(product: Any) -> bool:
    """Whether a product of SGLang's, with the weights that it was given, takes rows that are quantized one by one."""
    method = product.quant_method
    if type(method).__name__ != _FP8_METHOD:
        return False
    return (
        method.cutlass_fp8_supported
        and not method.block_quant
        and not method.use_marlin
        and product.input_scale is None
        and product.weight.dtype == FP8
        and product.weight_scale.numel() == product.weight.shape[1]
    )


def lies_by_columns(product: Any) -> bool:
    """Whether the weights of a column lie side by side, and scales in float32 likewise, which is what ours can read."""
    scales = product.weight_scale
    return product.weight.t().is_contiguous() and scales.is_contiguous() and scales.dtype == torch.float32


def _check_layer(layer: Any) -> None:
    attention, mlp = layer.self_attn, layer.mlp
    rotation, size = attention.rotary_emb, attention.head_dim
    products = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
    known = {
        "the rotation": type(rotation).__name__ == "RotaryEmbedding"
        and rotation.is_neox_style
        and rotation.rotary_dim == size,
        "the size of a head": size > 1 and size & (size - 1) == 0,
        "the norms of heads": attention.q_norm.variance_epsilon == attention.k_norm.variance_epsilon,
        "a bias": all(product.bias is None for product in products),
        "the cache's scales": attention.attn.k_scale is None and attention.attn.v_scale is None,
    }
    for what, is_known in known.items():
        if not is_known:
            raise ValueError(f"sglang_moss: --decoding-layers {FUSED} does not know {what}; take {STOCK}")


def _check_backend(backend: Any) -> None:
    """Ours says so; SGLang's in plain torch, of machines without a GPU, takes rows that are cached as well."""
    if not (getattr(backend, "takes_cached_rows", False) or type(backend).__name__ == "TorchNativeAttnBackend"):
        raise RuntimeError(
            f"sglang_moss: --decoding-layers {FUSED} does not know {type(backend).__name__}; take {STOCK}"
        )


def _check_cache(*caches: Tensor) -> None:
    if not all(cache.dim() == 3 and cache.is_contiguous() for cache in caches):
        raise RuntimeError(f"sglang_moss: --decoding-layers {FUSED} does not know this KV cache; take {STOCK}")
