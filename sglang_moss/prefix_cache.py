"""Prefix cache for rows: prompts are shared, generated rows never are.

SGLang keys its radix tree by token ids. Ours are one integer a row: a text id where the row carries no codes, else a
hash of the text id and the codes, so that two prompts share a prefix exactly where their rows are equal. Generated rows
reach SGLang as their text id alone and look alike in every request, so they must neither enter the tree nor be looked
up in it; stock SGLang does both (on finish, and when a retracted request is prefilled again).
"""

from typing import Any

import torch
from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
from sglang.srt.mem_cache.chunk_cache import ChunkCache
from sglang.srt.mem_cache.radix_cache import RadixCache
from sglang.srt.mem_cache.registry import TreeCacheBuildContext


class PromptRadixCache(RadixCache):
    """SGLang's radix cache, kept to the prompt's rows of every request."""

    def match_prefix(self, params: MatchPrefixParams) -> Any:
        if params.req is not None:
            n_prompt = len(params.req.origin_input_ids)
            limit = params.key.limit
            params.key.limit = n_prompt if limit is None else min(limit, n_prompt)
        return super().match_prefix(params)

    def cache_finished_req(self, req: Any, is_insert: bool = True, *, kv_len_to_handle: int) -> None:  # noqa: ARG002
        """Free a finished or retracted request's rows; its prompt entered the tree after its prefill."""
        super().cache_finished_req(req, is_insert=False, kv_len_to_handle=kv_len_to_handle)

    def cache_unfinished_req(self, req: Any, chunked: bool = False) -> None:
        n_prompt, extent = len(req.origin_input_ids), req.extend_range
        if self.disable or extent.end <= n_prompt:
            super().cache_unfinished_req(req, chunked=chunked)
            return
        req.set_extend_range(extent.start, n_prompt)
        try:
            super().cache_unfinished_req(req, chunked=chunked)
        finally:
            req.extend_range = extent
        # A retracted request that is prefilled in chunks goes on after the rows it has generated already.
        generated = self.req_to_token_pool.req_to_token[req.req_pool_idx, n_prompt : extent.end]
        req.prefix_indices = torch.cat([req.prefix_indices, generated.to(torch.int64, copy=True)])


def build_cache(context: TreeCacheBuildContext) -> Any:
    """Factory for SGLang's registry of radix cache backends."""
    if context.disable_radix_cache:
        return ChunkCache(context.params)
    return PromptRadixCache(context.params)
