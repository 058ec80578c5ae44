"""Where SGLang's full graphs of prefill may be asked for.

Breakable graphs, the default, leave the attention of every layer to be launched from the host, in between; full ones
hold it, in buffers that FlashAttention 3 alone of SGLang's backends keeps for them.
"""

from typing import Any

FULL = "full"
BREAKABLE = "breakable"
_FA3 = "fa3"


def why_not_full(server_args: Any, on_hopper: bool) -> str | None:
    """Why full graphs do not go with these arguments; None: they do.

    Args:
        server_args: as they were given.
        on_hopper: whether there is a GPU for which SGLang takes FlashAttention 3 by itself.
    """
    if not on_hopper:
        return "full graphs need a Hopper GPU (H100, H200)"
    if server_args.attention_backend not in (None, _FA3):
        return f"full graphs need --attention-backend {_FA3}"
    if server_args.kv_cache_dtype == "fp8_e5m2":
        return f"full graphs need {_FA3}, which SGLang leaves for a cache in fp8_e5m2"
    if server_args.dtype in ("float", "float32"):
        return "full graphs need a dtype of 16 bits"
    if server_args.page_size not in (None, 1):
        return "full graphs have not been tried with pages of several rows"
    if server_args.tp_size * server_args.dp_size > 1:
        return "full graphs have not been tried on several GPUs"
    return None
