"""Which of SGLang's graphs of prefill hold our backbone.

Breakable ones leave the attention of every layer to be launched from the host, in between; full ones hold it, in
buffers that FlashAttention 3 alone of SGLang's backends keeps for them.
"""

from typing import Any

FULL = "full"
_BREAKABLE = "breakable"
_HOPPER = 9
_FA3 = "fa3"


def why_not_full(server_args: Any, capability: int | None) -> str | None:
    """Why full graphs do not go with these arguments; None: they do.

    They go where they have been held to the golden data and to themselves: what FlashAttention 3 computes on one GPU.

    Args:
        server_args: as they were given.
        capability: major one of the GPU; None: there is no GPU.
    """
    if capability != _HOPPER:
        return "they need a Hopper GPU (H100, H200)"
    if server_args.attention_backend not in (None, _FA3) or server_args.kv_cache_dtype == "fp8_e5m2":
        return f"they need --attention-backend {_FA3}, which takes no cache in fp8_e5m2"
    if server_args.dtype in ("float", "float32"):
        return "they need 16 bits"
    if server_args.page_size not in (None, 1):
        return "they have not been tried with pages of several rows"
    if server_args.tp_size > 1:
        return "they have not been tried with several ranks"
    return None


def prefill_graphs(server_args: Any, capability: int | None) -> str:
    """The default of `--cuda-graph-backend-prefill` on a GPU; arguments as of `why_not_full`."""
    return _BREAKABLE if why_not_full(server_args, capability) else FULL
