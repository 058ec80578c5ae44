"""SGLang's FlashAttention 3 backend, whose decoding steps of many requests go through our kernel.

Prefill, small batches and whatever the kernel does not know stay SGLang's, and so does all of its bookkeeping. Where
results must not depend on the batch (`--enable-deterministic-inference`), which of the two computes a row may not
either: there SGLang's does all.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from sglang_moss.attention.flash_attention_3 import FA3
from sglang_moss.attention.kernels.decode import CACHE_DTYPES, MAX_GROUP, attend
from sglang_moss.attention.proof import prove
from sglang_moss.hooking import check_fields
from sglang_moss.server_args import serves_speech

logger = logging.getLogger(__name__)

LEAST_PROGRAMS = 256  # one for each request and key/value head; with fewer, much of a GPU is idle
_HEAD_DIMS = (32, 64, 128)
_CAPABILITIES = (8, 9)  # of GPUs that FlashAttention 3 runs on


def register() -> None:
    """Let SGLang's registry of attention backends build ours for our model, and its own for any other."""
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS, register_attention_backend

    stock = ATTENTION_BACKENDS[FA3]

    def build(runner: Any) -> Any:
        from sglang.srt import runtime_context, utils

        if (
            not serves_speech(runner.server_args)
            or runtime_context.get_exec().deterministic.enable_deterministic_inference
            or utils.get_device_capability()[0] not in _CAPABILITIES
        ):
            return stock(runner)
        from sglang.srt.layers.attention.flashattention_backend import FlashAttentionBackend, FlashAttentionMetadata
        from sglang.srt.model_executor.forward_batch_info import ForwardBatch

        from sglang_moss.hooks import PRIVATE_FIELDS

        backend = decoding_with_ours(FlashAttentionBackend)(runner)
        used = {
            "FlashAttentionBackend": backend,
            "FlashAttentionMetadata": FlashAttentionMetadata,
            "ForwardBatch": ForwardBatch,
        }
        check_fields(PRIVATE_FIELDS, used)
        heads = backend.num_attention_heads, backend.num_kv_heads
        if backend.kv_cache_dtype in CACHE_DTYPES and _are_plain(*heads, backend.head_dim):
            prove(*heads, backend.head_dim, backend.page_size, runner.dtype, backend.kv_cache_dtype, backend.device)
            least = -(-LEAST_PROGRAMS // backend.num_kv_heads)
            logger.info("decoding steps of %d requests and more take our kernel for attention", least)
        return backend

    register_attention_backend(FA3)(build)


def decoding_with_ours(stock: type) -> type:
    """A subclass of SGLang's backend; it is an argument since its module cannot be imported without a GPU."""

    class DecodingWithOurs(stock):
        takes_cached_rows = True  # SGLang's own reads no keys and values that it is not to cache, either

        def forward_decode(
            self,
            q: Tensor,
            k: Tensor | None,
            v: Tensor | None,
            layer: Any,
            forward_batch: Any,
            save_kv_cache: bool = True,
            **special: Any,
        ) -> Tensor:
            """Attention of a decoding step.

            Args:
                q: [B, HQ * D] of one row a request.
                k: [B, HK, D], as `v`; to be cached first, unless they are.
                special: what other models ask for.
            Returns:
                [B, HQ * D].
            """
            if (
                len(q) * layer.tp_k_head_num < LEAST_PROGRAMS
                or not _is_plain(layer, self.kv_cache_dtype, forward_batch, special)
                or not all(map(_has_whole_rows, caches := self.get_paged_mha_kv_cache(layer)))
            ):
                return super().forward_decode(q, k, v, layer, forward_batch, save_kv_cache, **special)
            if k is not None and save_kv_cache:
                from sglang.srt.mem_cache.memory_pool import KVWriteLoc

                self.token_to_kv_pool.set_kv_buffer(layer, KVWriteLoc.for_layer(forward_batch, layer), k, v)
            keys, values = caches
            seen = self.forward_metadata
            queries = q.contiguous().view(-1, layer.tp_q_head_num, layer.head_dim)
            out = attend(queries, keys, values, seen.page_table, seen.cache_seqlens_int32, layer.scaling)
            return out.flatten(1)

    return DecodingWithOurs


def _is_plain(layer: Any, cache_dtype: torch.dtype, forward_batch: Any, special: dict[str, Any]) -> bool:
    """Whether the kernel does all that a layer asks for, as the layers of our model do."""
    return (
        layer.head_dim == layer.v_head_dim
        and _are_plain(layer.tp_q_head_num, layer.tp_k_head_num, layer.head_dim)
        and layer.logit_cap == 0
        and layer.sliding_window_size == -1
        and not layer.is_cross_attention
        and layer.k_scale is None
        and layer.v_scale is None
        and cache_dtype in CACHE_DTYPES
        and forward_batch.spec_info is None
        and forward_batch._attn_output is None  # else it has to be written there
        and all(value is None or value is False for value in special.values())
    )


def _has_whole_rows(cache: Tensor) -> bool:
    """Whether the rows of a page [pages, page_size, HK, D] lie one after the other, which SGLang may do otherwise."""
    return cache[0].is_contiguous()


def _are_plain(n_heads: int, n_kv_heads: int, head_dim: int) -> bool:
    return n_heads <= MAX_GROUP * n_kv_heads and head_dim in _HEAD_DIMS
