"""Whether SGLang takes FlashAttention 3 for these arguments, by itself: some of ours stand on it."""

from typing import Any

FA3 = "fa3"


def why_not_taken(server_args: Any, on_hopper: bool) -> str | None:
    """What is in the way, to be read after 'needs'; None: nothing is.

    Args:
        server_args: as they were given.
        on_hopper: whether there is a GPU for which SGLang takes it where nobody says otherwise.
    """
    if not on_hopper:
        return "a Hopper GPU (H100, H200)"
    if server_args.attention_backend not in (None, FA3):
        return f"--attention-backend {FA3}"
    if server_args.kv_cache_dtype == "fp8_e5m2":
        return f"{FA3}, which SGLang leaves for a cache in fp8_e5m2"
    if server_args.dtype in ("float", "float32"):
        return "a dtype of 16 bits"
    return None
