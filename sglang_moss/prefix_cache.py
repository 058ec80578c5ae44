"""Prefix cache for rows: prompts are shared, generated rows never are.

SGLang keys its radix tree by token ids. Ours are one integer a row (`request.speech.row_keys`): a text id where the row
carries no codes, else a hash of the text id and the codes, so that two prompts share a prefix exactly where their rows
are equal. Generated rows reach SGLang as their text id alone and look alike in every request, so they must neither
enter the tree nor be looked up in it; stock SGLang does both (on finish, and when a retracted request is prefilled
again).
"""

from typing import Any

from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
from sglang.srt.mem_cache.registry import TreeCacheBuildContext, create_unified_radix_cache
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache


class PromptRadixCache(UnifiedRadixCache):
    """SGLang's radix cache, kept to the prompt's rows of every request."""

    def match_prefix(self, params: MatchPrefixParams) -> Any:
        if params.req is not None:
            n_prompt = len(params.req.origin_input_ids)
            limit = params.key.limit
            params.key.limit = n_prompt if limit is None else min(limit, n_prompt)
        return super().match_prefix(params)

    def checkpoint(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        """Take the rows of a request before `up_to` into the tree, as far as they are its prompt's."""
        super().checkpoint(req, up_to=min(up_to, len(req.origin_input_ids)), **kwargs)


def build_cache(context: TreeCacheBuildContext) -> Any:
    """Factory for SGLang's registry of radix cache backends; `--disable-radix-cache` makes one that keeps nothing."""
    return create_unified_radix_cache(context, cache_class=PromptRadixCache)
